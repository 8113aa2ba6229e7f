//! A steady load of HTTP requests, each on a connection of its own and never tried again.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A request may take so long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that share the rate.
const THREADS: u32 = 8;
/// However long the caller forgets to stop it.
const LONGEST: Duration = Duration::from_secs(300);

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// How many requests were sent.
    pub sent: usize,
    /// What each failed one said.
    pub failures: Vec<String>,
}

impl Load {
    /// Sends `rate` requests a second to `at`, from a network namespace.
    pub fn start(namespace: &str, at: SocketAddr, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let namespace = Path::new("/run/netns").join(namespace);
        let every = Duration::from_secs(1) * THREADS / rate;
        let sent = Arc::new(AtomicUsize::new(0));
        let one = |_| {
            let (namespace, stop, sent) = (namespace.clone(), stop.clone(), sent.clone());
            thread::spawn(move || work(namespace, at, every, &stop, &sent))
        };
        Self { threads: (0..THREADS).map(one).collect(), stop, sent }
    }

    /// How many requests were sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops it and tells what came of it.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| vec!["a thread panicked".to_owned()];
        let failures = self.threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        Report { sent: self.sent.load(Ordering::Relaxed), failures }
    }
}

/// Returns what each failed request said.
fn work(namespace: PathBuf, at: SocketAddr, every: Duration, stop: &AtomicBool, sent: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    let entered = File::open(&namespace)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
    if let Err(error) = entered {
        failures.push(format!("enter {}: {error}", namespace.display()));
        return failures;
    }
    let began = Instant::now();
    let mut due = began;
    while !stop.load(Ordering::Relaxed) && began.elapsed() < LONGEST {
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        due += every;
        sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = get(at) {
            failures.push(format!("after {:.2?}: {error:#}", began.elapsed()));
        }
    }
    failures
}

fn get(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, TIMEOUT).context("connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").context("send")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("receive")?;
    if !text.starts_with("HTTP/1.1 200 ") {
        bail!("answered {:?}", text.lines().next().unwrap_or_default());
    }
    Ok(())
}
