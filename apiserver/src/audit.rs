//! Audit: a line of JSON a request, at the Metadata level (`audit.k8s.io/v1`), in a file that rotates.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use serde_json::{Map, Value, json};

use crate::identity::user_info;
use crate::parts::{Audit, Audited};

/// Events that may wait for the disk; further ones are dropped and counted.
const QUEUE: usize = 4096;
/// A file that grew to this is set aside.
const MAX_BYTES: u64 = 64 << 20;
/// How many old files stay: `audit.log.1` is the youngest.
const KEPT: u32 = 3;

/// Writes to a file, from a thread of its own: a slow disk slows no request.
pub fn file(path: PathBuf) -> Arc<dyn Audit> {
    let (events, inbox) = sync_channel::<Audited>(QUEUE);
    std::thread::spawn(move || {
        let mut log = Log { path, file: None, bytes: 0 };
        for event in inbox {
            if let Err(error) = log.write(&line(&event)) {
                log.file = None;
                tracing::warn!(%error, path = %log.path.display(), "an audit line is lost");
            }
        }
    });
    Arc::new(Queue(events))
}

struct Queue(SyncSender<Audited>);

impl Audit for Queue {
    fn record(&self, event: Audited) {
        if let Err(TrySendError::Full(event)) = self.0.try_send(event) {
            tracing::warn!(uri = event.uri, "an audit line is lost: the disk is too slow");
        }
    }
}

struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.file.is_some() && self.bytes >= MAX_BYTES {
            self.file = None;
            self.rotate()?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
            self.bytes += u64::try_from(line.len()).unwrap_or_default();
        }
        Ok(())
    }

    fn rotate(&self) -> std::io::Result<()> {
        for n in (1..KEPT).rev() {
            let (from, to) = (numbered(&self.path, n), numbered(&self.path, n + 1));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        std::fs::rename(&self.path, numbered(&self.path, 1))
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// HTTP/2 names the host in the URI; the log holds path and query.
fn request_uri(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(uri)
}

fn line(event: &Audited) -> Vec<u8> {
    let latency = event.answered.duration_since(event.received);
    let mut line = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": event.id,
        "stage": "ResponseComplete",
        "requestURI": request_uri(&event.uri),
        "verb": event.attributes.verb,
        "userAgent": event.user_agent,
        "sourceIPs": event.peer.map(|peer| peer.ip().to_string()).into_iter().collect::<Vec<_>>(),
        "responseStatus": {"metadata": {}, "code": event.code},
        "requestReceivedTimestamp": api::time::rfc3339_micro(event.received),
        "stageTimestamp": api::time::rfc3339_micro(event.answered),
        "annotations": {"trimtab.dev/latency-ms": format!("{:.3}", latency.as_secs_f64() * 1000.0)},
    });
    for (key, value) in &event.annotations {
        line["annotations"][key] = value.as_str().into();
    }
    let user = event.impersonator.as_ref().unwrap_or(&event.attributes.user);
    line["user"] = user_info(user);
    if event.impersonator.is_some() {
        line["impersonatedUser"] = user_info(&event.attributes.user);
    }
    if let Some(target) = &event.attributes.resource {
        let fields = [
            ("resource", &target.resource),
            ("namespace", &target.object.namespace),
            ("name", &target.object.name),
            ("apiGroup", &target.group_version.group),
            ("apiVersion", &target.group_version.version),
            ("subresource", &target.subresource),
        ];
        let named = fields.into_iter().filter(|(_, text)| !text.is_empty());
        line["objectRef"] = named.map(|(k, v)| (k.to_owned(), Value::from(v.as_str()))).collect::<Map<_, _>>().into();
    }
    let mut bytes = line.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Log, MAX_BYTES, numbered};

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for n in 0..6u8 {
            let mut log = Log { path: path.clone(), file: None, bytes: 0 };
            log.write(&[b'0' + n]).unwrap();
            log.bytes = MAX_BYTES;
            log.write(b"x").unwrap();
        }
        let old = |n| std::fs::read_to_string(numbered(&path, n)).ok();
        assert_eq!([old(1), old(2), old(3), old(4)], [Some("x5".into()), Some("x4".into()), Some("x3".into()), None]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
    }
}
