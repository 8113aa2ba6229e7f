//! `cargo xtask bench`: figures of ours beside those of every peer that is found, measured in turns in one run.
//!
//! A row is a file here and a line in [`ROWS`]. What must be linked with the workspace's crates is an example there
//! ([`host::Host::driver`]); it prints what it saw and this program counts, so that it stays quick to build.

mod allocate;
mod container;
mod host;
mod idle;
mod list;
mod patch;
pub(crate) mod peer;
mod pod;
mod process;
mod put;
mod repeat;
mod row;
mod runtime;
mod schedule;
mod server;
mod services;
mod start;
mod unpack;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use host::Host;
pub(crate) use repeat::{Repeat, repeat};
use row::Row;
pub(crate) use runtime::{Lives, lives};

/// All rows, in the order in which they run. One line each.
#[rustfmt::skip]
const ROWS: &[&Row] = &[
    &put::ROW,
    &patch::ROW,
    &allocate::ROW,
    &list::ROW,
    &schedule::PLAIN,
    &schedule::CONSTRAINED,
    &pod::ROW,
    &container::ROW,
    &runtime::ROW,
    &unpack::ROW,
    &services::LOAD,
    &services::CHANGE,
    &idle::ROW,
    &start::ROW,
];

/// Measures rows of the table of targets beside every peer that is found (etcd, kube-apiserver, kube-scheduler,
/// kube-proxy, runc, crun, umoci).
///
/// Builds everything for release. Peers take turns (A B B A) in the same run, on the same directory; a figure is the
/// median of the turns, with the least and the most. Needs root; makes a network namespace and removes it.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --peers ~/.cache/upstream/bin P2 P4")]
pub(crate) struct Arguments {
    /// Where peers' programs are looked for, before PATH.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Rounds; each contender has two turns a round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long after the quick start the idle figures are taken, in minutes.
    #[arg(long, default_value_t = 1.0)]
    idle_minutes: f64,
    /// Where stores, bundles and peers keep their files: a directory on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Rows; all of them unless some are named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Builds, then measures one row after the other.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let rows = chosen(&arguments.names)?;
    let idle = Duration::try_from_secs_f64(arguments.idle_minutes * 60.0).context("--idle-minutes")?;
    let host = Host::prepare(arguments.peers.clone(), &arguments.dir, idle)?;
    host.introduce();
    let failed: Vec<&str> =
        rows.into_iter().filter(|row| !measured(row, &host, arguments.rounds)).map(|r| r.id).collect();
    if failed.is_empty() { Ok(()) } else { bail!("not measured: {}", failed.join(", ")) }
}

/// One row that cannot be measured must not cost the others.
fn measured(row: &Row, host: &Host, rounds: usize) -> bool {
    match row.measure(host, rounds) {
        Ok(table) => println!("{table}"),
        Err(error) => {
            eprintln!("{}: {error:#}", row.id);
            return false;
        }
    }
    true
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.id.eq_ignore_ascii_case(name))) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
        bail!("there is no row {unknown}; there are {}", known.join(", "));
    }
    let wanted = |row: &&&Row| names.is_empty() || names.iter().any(|name| row.id.eq_ignore_ascii_case(name));
    Ok(ROWS.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::{ROWS, chosen};

    #[test]
    fn rows_are_chosen_by_name_in_any_case() {
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            chosen(&names).map(|rows| rows.iter().map(|row| row.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["p18", "P2"]).unwrap(), ["P2", "P18"]);
        assert_eq!(ids(&[]).unwrap().len(), ROWS.len());
        assert!(ids(&["P2", "P0"]).unwrap_err().to_string().contains("there is no row P0"));
    }
}
