//! More reviews than can be answered: each has an answer in its time, and nobody works for callers that are gone.

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod http;
}

use sluice_webhook::server::{Limits, handler};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::http::{Reply, allow, review, serve};

/// Three waves over 512 connections onto a handler that gives 64 answers in 200 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_comes_after_its_deadline() {
    let handler = handler(|body, _| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        allow(&body)
    });
    let serving = serve(handler, Limits::default()).await;
    let mut connections = Vec::new();
    for _ in 0..512 {
        connections.push(serving.connect().await);
    }
    let (mut allowed, mut shed) = (0, 0);
    let mut slowest = Duration::ZERO;
    for wave in 0..3 {
        let asked = connections.into_iter().enumerate().map(|(at, mut connection)| {
            tokio::spawn(async move {
                let uid = format!("{wave}-{at}");
                let begun = Instant::now();
                let reply = connection.post("/validate?timeout=1s", review(&uid, 4000)).await.unwrap();
                (connection, reply, uid, begun.elapsed())
            })
        });
        connections = Vec::new();
        for task in asked.collect::<Vec<_>>() {
            let (connection, reply, uid, took) = task.await.unwrap();
            assert!(took < Duration::from_secs(1), "{uid} was answered after {took:?}");
            if reply.json()["response"]["allowed"] == true {
                reply.assert_allowed(&uid);
                allowed += 1;
            } else {
                reply.assert_denied(503, &uid);
                shed += 1;
            }
            slowest = slowest.max(took);
            connections.push(connection);
        }
    }
    assert!(allowed >= 3 * 64 && shed > 0, "{allowed} allowed, {shed} shed");
    println!("{allowed} allowed, {shed} shed, the slowest answer after {slowest:?}");
    let by_reason = |reason| serving.metric(&format!(r#"shed_total{{reason="{reason}"}}"#));
    assert_eq!(by_reason("queue") + by_reason("late"), f64::from(shed));
    assert_eq!(serving.metric("in_flight"), 0.0);
}

#[tokio::test]
async fn a_handler_that_never_answers_is_a_denial_in_time() {
    let serving = serve(handler(|_, _| std::future::pending()), Limits::default()).await;
    let mut connection = serving.connect().await;
    let begun = Instant::now();
    connection.post("/validate?timeout=1s", review("a", 0)).await.unwrap().assert_denied(503, "a");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_full_queue_is_a_denial_at_once() {
    let limits = Limits { in_work: 1, in_queue: 0, budget: Duration::from_secs(60), ..Limits::default() };
    let serving = serve(handler(|_, _| std::future::pending()), limits).await;
    let (mut stuck, mut shed) = (serving.connect().await, serving.connect().await);
    let stuck = tokio::spawn(async move { stuck.post("/validate", review("a", 0)).await });
    serving.until("in_flight", |count| count == 1.0).await;
    let begun = Instant::now();
    let reply: Reply = shed.post("/validate", review("b", 0)).await.unwrap();
    println!("denied after {:?}", begun.elapsed());
    reply.assert_denied(503, "b");
    assert!(!stuck.is_finished());
    stuck.abort();
}

#[tokio::test]
async fn work_stops_when_its_caller_is_gone() {
    let working = Arc::new(AtomicUsize::new(0));
    struct Work(Arc<AtomicUsize>);
    impl Drop for Work {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let count = Arc::clone(&working);
    let handler = handler(move |_, _| {
        count.fetch_add(1, Relaxed);
        let work = Work(Arc::clone(&count));
        async move {
            let _work = work;
            std::future::pending().await
        }
    });
    let serving = serve(handler, Limits { budget: Duration::from_secs(3600), ..Limits::default() }).await;
    let mut callers = Vec::new();
    for at in 0..4 {
        let mut connection = match at % 2 {
            0 => serving.connect().await,
            _ => serving.client.connect_http2(serving.address).await.unwrap(),
        };
        callers.push(tokio::spawn(async move { connection.post("/validate", review("a", 0)).await }));
    }
    serving.until("in_flight", |count| count == 4.0).await;
    for caller in callers {
        caller.abort();
    }
    serving.until("in_flight", |count| count == 0.0).await;
    assert_eq!(working.load(Relaxed), 0);
}
