//! Writing: all of it or nothing.

use super::{Header, ServiceCounts, Tick, VERSION};
use crate::metrics::FileError;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const REFUSED: &str = "nothing was written, since nobody could read it; correct the counts";

/// Writes a recording beside its final place and moves it there when it is complete.
///
/// Dropped before [`finish`](Writer::finish), it leaves nothing behind. An older file of that name is replaced at the last moment.
pub struct Writer {
    path: PathBuf,
    temporary: Temporary,
    encoder: Encoder<BufWriter<File>>,
    header: Header,
    last: Option<i64>,
}

impl Writer {
    /// Starts a recording.
    pub fn create(path: &Path, header: &Header) -> Result<Self, FileError> {
        let Some(name) = path.file_name() else {
            return Err(FileError::new(path, "is not a file name", "name the file to write"));
        };
        header.check().map_err(|what| FileError::new(path, what, REFUSED))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary);
        let file = file.map_err(|source| FileError::writing(path, source))?;
        let temporary = Temporary(Some(temporary));
        let encoder = Encoder::new(BufWriter::new(file), header).map_err(|source| FileError::writing(path, source))?;
        Ok(Self { path: path.to_owned(), temporary, encoder, header: header.clone(), last: None })
    }

    /// Adds a tick; they come oldest first.
    pub fn tick(&mut self, tick: &Tick) -> Result<(), FileError> {
        tick.check(&self.header, self.last).map_err(|what| FileError::new(&self.path, what, REFUSED))?;
        self.last = Some(tick.t);
        self.encoder.tick(tick).map_err(|source| FileError::writing(&self.path, source))
    }

    /// Writes the footer, makes sure that all is on disk, and gives the file its name.
    pub fn finish(self) -> Result<(), FileError> {
        let Self { path, mut temporary, encoder, .. } = self;
        let complete = || -> io::Result<()> {
            let file = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            temporary.rename(&path)?;
            // The new name is on disk when the folder is. Not every file system can do that, and the data is safe by now.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        };
        complete().map_err(|source| FileError::writing(&path, source))
    }
}

/// A file that goes away unless it gets its final name.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn rename(&mut self, to: &Path) -> io::Result<()> {
        if let Some(path) = &self.0 {
            fs::rename(path, to)?;
            self.0 = None;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The bytes of a recording: the same ones for the same content, whatever the clock says and wherever they go.
struct Encoder<W: Write> {
    gzip: GzEncoder<W>,
    digest: Sha256,
    ticks: u64,
}

impl<W: Write> Encoder<W> {
    fn new(out: W, header: &Header) -> io::Result<Self> {
        const UNKNOWN_SYSTEM: u8 = 255;
        let gzip = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM).write(out, Compression::best());
        let mut encoder = Self { gzip, digest: Sha256::new(), ticks: 0 };
        encoder.line(&json!({
            "format": "sluice-recording",
            "version": VERSION,
            "tick": header.tick,
            "mesh": header.mesh,
            "source": header.source,
            "created": header.created.to_string(),
            "from": header.from,
            "edges_ms": numbers(&header.edges_ms),
        }))?;
        Ok(encoder)
    }

    fn tick(&mut self, tick: &Tick) -> io::Result<()> {
        self.ticks += 1;
        let services: Map<String, Value> =
            tick.services.iter().map(|(name, counts)| (name.clone(), service(counts))).collect();
        self.line(&json!({ "t": tick.t, "services": services }))
    }

    fn finish(mut self) -> io::Result<W> {
        let sha256 = hex::encode(self.digest.clone().finalize());
        self.line(&json!({ "end": { "ticks": self.ticks, "sha256": sha256 } }))?;
        let mut out = self.gzip.finish()?;
        out.flush()?;
        Ok(out)
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.digest.update(&line);
        self.gzip.write_all(&line)
    }
}

fn service(counts: &ServiceCounts) -> Value {
    let mut value = Map::new();
    value.insert("requests".into(), number(counts.requests));
    value.insert("errors".into(), number(counts.errors));
    let mut list = |key: &str, list: Option<&[f64]>| {
        if let Some(list) = list {
            value.insert(key.into(), numbers(list));
        }
    };
    list("answers", counts.answers.as_ref().map(<[f64; 5]>::as_slice));
    list("retried", counts.retried.as_ref().map(<[f64; 5]>::as_slice));
    list("buckets", counts.buckets.as_deref());
    list("replicas", counts.replicas.as_ref().map(<[f64; 2]>::as_slice));
    if !counts.scores.is_empty() {
        let scores = counts.scores.iter().map(|(name, counts)| (name.clone(), numbers(&[counts.n, counts.x])));
        value.insert("scores".into(), Value::Object(scores.collect()));
    }
    Value::Object(value)
}

fn numbers(list: &[f64]) -> Value {
    list.iter().copied().map(number).collect()
}

/// Counts are whole numbers nearly always, and read better without `.0`.
fn number(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if (0.0..EXACT).contains(&number) && number.fract() == 0.0 { json!(number as u64) } else { json!(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for this many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn header() -> Header {
        let created = jiff::Timestamp::from_second(60).unwrap();
        let (mesh, source) = ("default".to_owned(), "here".to_owned());
        Header { tick: 30, mesh, source, created, from: Vec::new(), edges_ms: vec![0.5, 1.0] }
    }

    #[test]
    fn says_that_the_disk_is_full() {
        let error = Encoder::new(Disk(20), &header()).and_then(Encoder::finish).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = FileError::writing(Path::new("out.gz"), error);
        let wanted = "out.gz: cannot be written: the disk is full; free some space or choose another folder; nothing was left behind";
        assert_eq!(error.to_string(), wanted);
        assert!(Encoder::new(Disk(4000), &header()).and_then(Encoder::finish).is_ok());
    }

    #[test]
    fn leaves_nothing_behind_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sluice.gz");
        fs::write(&path, "older").unwrap();
        let mut writer = Writer::create(&path, &header()).unwrap();
        writer.tick(&Tick { t: 30, ..Tick::default() }).unwrap();
        let nan = ServiceCounts { requests: f64::NAN, ..ServiceCounts::default() };
        let nan = Tick { t: 60, services: [("a".to_owned(), nan)].into() };
        assert!(writer.tick(&nan).is_err() && writer.tick(&Tick { t: 31, ..Tick::default() }).is_err());
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"older");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        Writer::create(&path, &header()).unwrap().finish().unwrap();
        assert_ne!(fs::read(&path).unwrap(), b"older");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(Writer::create(&folder.path().join("none/a.gz"), &header()).is_err());
    }

    #[test]
    fn writes_whole_numbers_without_a_fraction() {
        assert_eq!(numbers(&[0.0, 12.0, 0.5, 1e300]).to_string(), "[0,12,0.5,1e+300]");
    }
}
