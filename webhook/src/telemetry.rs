//! Logs and traces. Object bodies and secrets are in neither.

pub mod metrics;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The target of the one span per review; no other span leaves the process.
pub const REVIEW: &str = "sluice_webhook::review";

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs and traces; traces are sent until [`Telemetry::finish`].
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging to standard error, and sending traces when there is an OTLP endpoint, such as
    /// `http://collector:4318`. Call it before there is an async runtime: the sender of traces brings its own threads.
    ///
    /// # Errors
    ///
    /// The filter or the endpoint makes no sense.
    pub fn start(format: Format, filter: &str, otlp: Option<&str>) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(filter).with_context(|| format!("the log filter `{filter}` cannot be read"))?;
        let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let logs = match format {
            Format::Text => logs.with_ansi(false).boxed(),
            Format::Json => logs.json().flatten_event(true).boxed(),
        };
        let traces = otlp.map(exporter).transpose()?;
        // Without this layer nobody asks for the span, and it is never made.
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("sluice-webhook"))
                .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == REVIEW))
        });
        tracing_subscriber::registry().with(spans).with(logs.with_filter(filter)).init();
        // The message of a panic may quote an object.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!("panic at {place}");
        }));
        Ok(Self { traces })
    }

    /// Sends what is left. Call it when the async runtime is gone.
    pub fn finish(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!("the last traces could not be sent: {error}");
        }
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    // The sender is built without TLS, and would say so with every batch rather than now.
    let is_plain = endpoint.starts_with("http://");
    anyhow::ensure!(is_plain, "cannot send traces to `{endpoint}`: write http://, to a collector in the cluster");
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(url)
        .build()
        .with_context(|| format!("cannot send traces to `{endpoint}`"))?;
    let resource = Resource::builder().with_service_name("sluice-webhook").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
