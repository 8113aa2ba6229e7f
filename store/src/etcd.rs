//! The store in an etcd of version 3.4 or newer. Keys and values are stored as given, so that a kube-apiserver can open
//! the same etcd.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare as Comparison, CompareOp, ConnectOptions, DeleteOptions, GetOptions, GetResponse,
    Identity, KeyValue, KvClient, LeaseClient, PutOptions, ResponseHeader, TlsOptions, Txn as Transaction, TxnOp,
    TxnOpResponse, WatchClient,
};
use tokio::sync::watch as bell;

use crate::served::check;
use crate::{Commit, Entry, Error, LeaseId, MAX_TXN_BYTES, Op, Page, Range, Revision, Store, Txn, Watch};

mod compaction;
mod watch;

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of members, `http://` or `https://`.
    pub urls: Vec<String>,
    /// A PEM file with the certificates that etcd's own must be signed by.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the client certificate and its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// A user and its password.
    pub user: Option<(String, String)>,
    /// An etcd that does not answer, perhaps not yet, is tried for so long.
    pub patience: Duration,
    /// History older than this, or twice this, is compacted; zero: never by us.
    pub compaction: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            ca_file: None,
            client_files: None,
            user: None,
            patience: Duration::from_secs(60),
            compaction: Duration::from_secs(300),
        }
    }
}

/// A request without an answer after this long has failed (kube-apiserver waits as long).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pauses between attempts to connect; each is twice as long as the one before.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// gRPC's InvalidArgument (etcd's word for a wrong password), PermissionDenied, FailedPrecondition, Unimplemented and
/// Unauthenticated.
const REFUSALS: [i32; 5] = [3, 7, 9, 12, 16];
/// A silent connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A store in etcd. Clones share the connection.
#[derive(Clone)]
pub struct Etcd {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    /// Whether this etcd's answers to requests for progress can be relied on.
    answers_progress: bool,
    /// The revision up to which watches shall deliver progress.
    wanted: Arc<bell::Sender<Revision>>,
}

impl Etcd {
    /// Connects to etcd and asks for its version. `Unavailable` if it does not answer in time, or at once if it refuses
    /// or what the configuration names cannot be read.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let options = connect_options(&config)?;
        let (deadline, urls) = (Instant::now() + config.patience, config.urls.join(", "));
        let mut retry = FIRST_RETRY;
        loop {
            let error = match limited(Self::reach(&config.urls, options.clone())).await {
                Ok(Ok(store)) => {
                    if !config.compaction.is_zero() {
                        compaction::start(store.kv.clone(), config.compaction, store.wanted.subscribe());
                    }
                    return Ok(store);
                }
                Ok(Err(error)) if refuses(&error) => return Err(unavailable(&error)),
                Ok(Err(error)) => unavailable(&error),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unavailable(format!("no answer from {urls}: {error}")));
            }
            tracing::warn!(%error, "no answer from {urls}: trying again for {} s", left.as_secs());
            tokio::time::sleep(retry.min(left)).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn reach(urls: &[String], options: ConnectOptions) -> Result<Self, etcd_client::Error> {
        let client = Client::connect(urls, Some(options)).await?;
        let status = client.maintenance_client().status().await?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(usize::MAX),
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
            lease: client.lease_client(),
            answers_progress: answers_progress(status.version()),
            wanted: Arc::new(bell::Sender::new(0)),
        })
    }

    async fn get(&self, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<GetResponse, Error> {
        let mut kv = self.kv.clone();
        limited(kv.get(key, Some(options))).await?.map_err(|e| unavailable(&e))
    }

    /// The oldest readable revision; etcd tells it only to a watch that asks for an older one.
    async fn oldest(&self) -> Revision {
        let oldest = limited(watch::compacted(self.watch.clone())).await;
        oldest.ok().flatten().unwrap_or(0)
    }

    /// Says what a failed request for `revision` means; the oldest readable revision may have to be asked for.
    async fn explain(&self, error: Error, revision: Revision) -> Error {
        match error {
            Error::Compacted(0) => Error::Compacted(self.oldest().await),
            Error::FutureRevision(_) => Error::FutureRevision(revision),
            other => other,
        }
    }
}

fn connect_options(config: &Config) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE, CONNECT_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some((user, password)) = &config.user {
        options = options.with_user(user, password).with_auto_token_refresh(true);
    }
    if config.urls.iter().any(|url| url.starts_with("https://")) {
        options = options.with_tls(tls_options(config)?);
    }
    Ok(options)
}

fn tls_options(config: &Config) -> Result<TlsOptions, Error> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|e| Error::Unavailable(format!("reading {}: {e}", path.display())));
    let mut tls = TlsOptions::new();
    if let Some(path) = &config.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    if let Some((certificate, key)) = &config.client_files {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

/// Requests for progress were wrong before 3.4.31 and 3.5.13 (etcd issue 15220 and its successors): a watch could be
/// told of a revision whose events it had not seen.
fn answers_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

async fn limited<T>(request: impl Future<Output = T>) -> Result<T, Error> {
    let timed = tokio::time::timeout(REQUEST_TIMEOUT, request).await;
    timed.map_err(|_| Error::Unavailable(format!("etcd did not answer within {} s", REQUEST_TIMEOUT.as_secs())))
}

/// Whether etcd was reached and does not want us, or nothing could be tried at all.
fn refuses(error: &etcd_client::Error) -> bool {
    use etcd_client::Error::{GRpcStatus, InvalidArgs, InvalidUri};
    match error {
        GRpcStatus(status) => REFUSALS.contains(&(status.code() as i32)),
        other => matches!(other, InvalidArgs(_) | InvalidUri(_)),
    }
}

/// What an error of a request that changes nothing means.
fn unavailable(error: &etcd_client::Error) -> Error {
    refusal(error).unwrap_or_else(|| Error::Unavailable(format!("etcd: {error}")))
}

/// What etcd says when it refuses a request; nothing if the error is of another kind (etcd's rpctypes).
fn refusal(error: &etcd_client::Error) -> Option<Error> {
    let etcd_client::Error::GRpcStatus(status) = error else { return None };
    let message = status.message();
    let has = |what: &str| message.contains(what);
    Some(match () {
        () if has("revision has been compacted") => Error::Compacted(0),
        () if has("is a future revision") => Error::FutureRevision(0),
        () if has("lease not found") => Error::LeaseNotFound(0),
        () if has("request is too large") => Error::TooLarge(MAX_TXN_BYTES + 1, MAX_TXN_BYTES),
        () if has("duplicate key") || has("too many operations") => Error::Invalid(message.to_owned()),
        () if has("database space exceeded") => Error::NoSpace,
        () => return None,
    })
}

/// What an error of a commit means: unless etcd refused it, it may have happened.
fn uncertain(error: &etcd_client::Error) -> Error {
    refusal(error).unwrap_or_else(|| Error::Unknown(format!("etcd: {error}")))
}

fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |h| h.revision() as Revision)
}

fn entry(kv: KeyValue) -> Entry {
    let (create_revision, mod_revision, lease) = (kv.create_revision(), kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    Entry {
        key: key.into(),
        value: value.into(),
        create_revision: create_revision as Revision,
        mod_revision: mod_revision as Revision,
        lease,
    }
}

fn operation(op: Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease: 0 } => TxnOp::put(key, value, None),
        Op::Put { key, value, lease } => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
        Op::Delete { key } => TxnOp::delete(key, None::<DeleteOptions>),
    }
}

/// The lease that a transaction names; etcd does not say which one it missed.
fn lease_of(ops: &[Op]) -> LeaseId {
    let lease = |op: &Op| match op {
        Op::Put { lease, .. } if *lease != 0 => Some(*lease),
        _ => None,
    };
    ops.iter().find_map(lease).unwrap_or(0)
}

#[async_trait]
impl Store for Etcd {
    async fn commit(&self, txn: Txn) -> Result<Commit, Error> {
        check(&txn)?;
        let lease = lease_of(&txn.ops);
        let compared = txn.compare.iter().map(|c| TxnOp::get(c.key.clone(), None)).collect::<Vec<_>>();
        let equal =
            |c: &crate::Compare| Comparison::mod_revision(c.key.clone(), CompareOp::Equal, c.mod_revision as i64);
        let transaction = Transaction::new()
            .when(txn.compare.iter().map(equal).collect::<Vec<_>>())
            .and_then(txn.ops.into_iter().map(operation).collect::<Vec<_>>())
            .or_else(compared);
        let mut kv = self.kv.clone();
        let answer = limited(kv.txn(transaction)).await.map_err(|e| Error::Unknown(e.to_string()))?;
        let answer = answer.map_err(|e| match uncertain(&e) {
            Error::LeaseNotFound(_) => Error::LeaseNotFound(lease),
            other => other,
        })?;
        let revision = revision_of(answer.header());
        if answer.succeeded() {
            return Ok(Commit::Done(revision));
        }
        let found = answer.op_responses().into_iter().filter_map(|response| match response {
            TxnOpResponse::Get(mut get) => Some(get.take_kvs().pop().map(entry)),
            _ => None,
        });
        Ok(Commit::Conflict(revision, found.collect()))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        if range.start >= range.end {
            return Ok(Page { revision: self.revision().await?, ..Page::default() });
        }
        let mut options = GetOptions::new().with_range(range.end).with_limit(range.limit as i64);
        options = options.with_revision(range.revision as i64);
        if range.count_only {
            options = options.with_count_only();
        }
        let mut answer = match self.get(range.start, options).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.explain(error, range.revision).await),
        };
        let revision = if range.revision == 0 { revision_of(answer.header()) } else { range.revision };
        let count = answer.count() as usize;
        Ok(Page { entries: answer.take_kvs().into_iter().map(entry).collect(), revision, count })
    }

    async fn revision(&self) -> Result<Revision, Error> {
        // Any linearizable read carries the revision; this one reads nothing.
        let answer = self.get("/", GetOptions::new().with_count_only()).await?;
        Ok(revision_of(answer.header()))
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error> {
        let next = if from == 0 { self.revision().await? + 1 } else { from };
        Ok(watch::start(self.watch.clone(), prefix, next, self.answers_progress, self.wanted.subscribe()))
    }

    async fn progress(&self) -> Result<(), Error> {
        let revision = self.revision().await?;
        self.wanted.send_modify(|wanted| *wanted = revision.max(*wanted));
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut kv = self.kv.clone();
        match limited(kv.compact(revision as i64, None)).await?.map_err(|e| unavailable(&e)) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, revision).await),
        }
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        let mut lease = self.lease.clone();
        Ok(limited(lease.grant(ttl_seconds, None)).await?.map_err(|e| unavailable(&e))?.id())
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        let mut client = self.lease.clone();
        match limited(client.keep_alive(lease)).await? {
            Ok(_) => Ok(()),
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => Err(Error::LeaseNotFound(lease)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let mut client = self.lease.clone();
        match limited(client.revoke(lease)).await?.map_err(|e| uncertain(&e)) {
            Ok(_) => Ok(()),
            Err(Error::LeaseNotFound(_)) => Err(Error::LeaseNotFound(lease)),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_that_answer_progress() {
        let table = [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.7.3", true),
            ("4.0.0", true),
            ("", false),
        ];
        for (version, expected) in table {
            assert_eq!(super::answers_progress(version), expected, "{version}");
        }
    }
}
