//! One exec or attach session as the node's server sees it.

use std::fmt::Write;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::lane::Lane;

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Wants {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wants {
    /// From a query, in the kubelet's words (`input`, `output`, `error`) or the API's (`stdin`, `stdout`, `stderr`).
    /// With a terminal there is no separate stderr.
    pub fn from_query(query: &str) -> Self {
        let mut wants = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let on = matches!(value, "1" | "true");
            match key {
                "input" | "stdin" => wants.stdin = on,
                "output" | "stdout" => wants.stdout = on,
                "error" | "stderr" => wants.stderr = on,
                "tty" => wants.tty = on,
                _ => {}
            }
        }
        wants.stderr &= !wants.tty;
        wants
    }

    /// Whether there is anything to stream.
    pub fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With code 0, or an attach session that ended.
    Done,
    /// With another code.
    Code(i32),
    /// It did not start, or nobody knows its code: a message for the user.
    Failed(String),
}

impl Exit {
    /// The `v1.Status` that goes over the error stream.
    pub fn status(&self) -> String {
        match self {
            Self::Done => r#"{"metadata":{},"status":"Success"}"#.into(),
            Self::Code(code) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":"command terminated with non-zero exit code: exit status {code}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
            ),
            Self::Failed(why) => {
                let why = quoted(&format!("Internal error occurred: {why}"));
                format!(
                    r#"{{"metadata":{{}},"status":"Failure","message":{why},"reason":"InternalError","details":{{"causes":[{{"message":{why}}}]}},"code":500}}"#
                )
            }
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The streams of a session. A stream is there if it was asked for.
pub struct RemoteCommand {
    /// What the user types; ends when the user's input ends or the user is gone.
    pub stdin: Option<DuplexStream>,
    /// Write here what the command prints, and drop it at the end of it.
    pub stdout: Option<DuplexStream>,
    /// The same for errors.
    pub stderr: Option<DuplexStream>,
    /// New sizes of the user's terminal.
    pub resize: mpsc::Receiver<Size>,
    /// Takes how it ended. Output written before is delivered before the session closes; drop stdout and stderr first.
    pub exit: ExitSender,
    /// Cancelled when the connection is gone.
    pub gone: CancellationToken,
}

/// Ends a session. Dropped without a word, the session just closes.
pub struct ExitSender(oneshot::Sender<Exit>);

impl ExitSender {
    /// Tells how the command ended; the session then closes.
    pub fn send(self, exit: Exit) {
        // The receiver is gone only when the client is.
        let _ = self.0.send(exit);
    }
}

/// The raw lanes of a session, whatever carries them.
#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) stdin: Option<Lane>,
    pub(crate) stdout: Option<Lane>,
    pub(crate) stderr: Option<Lane>,
    pub(crate) error: Option<Lane>,
    pub(crate) resize: Option<Lane>,
}

/// Makes the session. `gone` is cancelled when the connection ended; `close` ends it.
pub(crate) fn session(lanes: Lanes, gone: CancellationToken, close: CancellationToken) -> RemoteCommand {
    let (sizes, resize) = mpsc::channel(8);
    if let Some(lane) = lanes.resize {
        tokio::spawn(read_sizes(lane.read, sizes));
    }
    let (exit, ended) = oneshot::channel();
    let (stdout, stdout_sent) = lanes.stdout.map(Lane::writer).unzip();
    let (stderr, stderr_sent) = lanes.stderr.map(Lane::writer).unzip();
    let error = lanes.error;
    let finish = async move {
        let exit: Option<Exit> = ended.await.ok();
        // Clients take the status for the end: the output goes before it.
        for sent in [stdout_sent, stderr_sent].into_iter().flatten() {
            let _ = sent.await;
        }
        let (error, error_sent) = error.map(Lane::writer).unzip();
        if let (Some(exit), Some(mut error)) = (exit, error) {
            let _ = error.write_all(exit.status().as_bytes()).await;
        }
        if let Some(sent) = error_sent {
            let _ = sent.await;
        }
    };
    let lost = gone.clone();
    tokio::spawn(async move {
        tokio::select! { () = finish => {}, () = lost.cancelled() => {} }
        close.cancel();
    });
    RemoteCommand { stdin: lanes.stdin.map(|lane| lane.read), stdout, stderr, resize, exit: ExitSender(exit), gone }
}

/// Sizes come as JSON objects, `{"Width":80,"Height":24}`, with or without a line end between them.
async fn read_sizes(io: DuplexStream, sizes: mpsc::Sender<Size>) {
    let mut io = BufReader::new(io);
    let mut text = Vec::new();
    while let Ok(1..) = io.read_until(b'}', &mut text).await {
        let size = size(&String::from_utf8_lossy(&text));
        text.clear();
        if let Some(size) = size
            && sizes.send(size).await.is_err()
        {
            return;
        }
    }
}

fn size(text: &str) -> Option<Size> {
    let number = |key: &str| -> Option<u16> {
        let (_, after) = text.split_once(key)?;
        let digits = after.trim_start_matches(['"', ':', ' ']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok()
    };
    Some(Size { columns: number("Width")?, rows: number("Height")? })
}

#[cfg(test)]
mod tests {
    use super::{Exit, Size, Wants, size};

    #[test]
    fn a_terminal_has_no_stderr() {
        let wants = Wants::from_query("input=1&output=1&error=1&tty=1&command=a");
        assert_eq!(wants, Wants { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(Wants::from_query("stderr=true").any() && !Wants::from_query("stdin=false").any());
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("{\"Width\":80,\"Height\":24}"), Some(Size { columns: 80, rows: 24 }));
        assert_eq!(size("{\"Width\":80}"), None);
    }

    #[test]
    fn failures_are_json() {
        assert!(Exit::Failed("a \"b\"\n".into()).status().contains(r#"occurred: a \"b\"\u000a""#));
    }
}
