//! Seeded simulation of a group of members: one thread, virtual time, disks that lose what was not synced, fill up and
//! turn bits, a network that delays, drops, doubles, reorders and parts; crashes in the middle of writes, leaders that
//! change, members that are replaced.
//!
//! Clients write, compare, read, watch and hold leases meanwhile. After every step a [`history`] of all revisions says
//! whether what they and the members were told can be true. After the storm comes a calm in which all must agree. A seed
//! decides everything: the same seed makes the same run, to the byte.

mod clients;
mod cluster;
mod dice;
mod faults;
mod history;
mod network;
mod operator;
mod watchers;

use std::time::Duration;

use crate::embedded::{LogConfig, Settings};
use cluster::Cluster;
use faults::STORM;
use network::ROUGH;

/// Clients go on until so many more writes are acknowledged after the storm.
const STILL_BUSY: u64 = 20;
/// The calm may take so long.
const CALM: Duration = Duration::from_secs(90);
/// Lines of a failed run that are shown.
const TAIL: usize = 60;

/// What a run did and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Every fault and what it led to, a line each.
    pub trace: Vec<String>,
    /// How often things happened.
    pub tally: Tally,
    /// What was wrong, if anything, with the last lines of the trace.
    pub result: Result<(), String>,
}

/// How often things happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes whose compare failed.
    pub conflicts: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Requests whose outcome nobody was told.
    pub unknown: u64,
    /// Terms with a leader.
    pub leaders: u64,
    /// Machines whose power was cut.
    pub cuts: u64,
    /// Writes that were refused, and members that stopped, because a disk was full.
    pub full: u64,
    /// Snapshots that were sent.
    pub snapshots: u64,
    /// Members that were replaced.
    pub replaced: u64,
    /// Disks with a bit turned that were refused.
    pub refused: u64,
    /// Disks with a bit turned where nobody needed it.
    pub harmless: u64,
    /// Watches that went on at another member.
    pub resumed: u64,
    /// Watches that had to read everything anew.
    pub relisted: u64,
}

impl Tally {
    /// Counts what happened in another run, too.
    pub fn add(&mut self, other: &Self) {
        let Self { writes, conflicts, reads, unknown, leaders, cuts, full, snapshots, .. } = other;
        self.writes += writes;
        self.conflicts += conflicts;
        self.reads += reads;
        self.unknown += unknown;
        self.leaders += leaders;
        self.cuts += cuts;
        self.full += full;
        self.snapshots += snapshots;
        self.replaced += other.replaced;
        self.refused += other.refused;
        self.harmless += other.harmless;
        self.resumed += other.resumed;
        self.relisted += other.relisted;
    }
}

fn settings() -> Settings {
    Settings {
        log: LogConfig { segment_bytes: 4 << 10 },
        history: Duration::from_secs(15),
        history_bytes: 128 << 10,
        snapshot_bytes: 8 << 10,
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Run {
    match Cluster::new(seed) {
        Ok(mut cluster) => {
            let result = live(&mut cluster);
            let from = cluster.trace.len().saturating_sub(TAIL);
            let shown = cluster.trace.get(from..).unwrap_or_default().join("\n");
            let result = result.map_err(|wrong| format!("{shown}\nseed {seed} at {:?}: {wrong}", cluster.now));
            Run { trace: cluster.trace, tally: cluster.tally, result }
        }
        Err(wrong) => Run { trace: Vec::new(), tally: Tally::default(), result: Err(format!("seed {seed}: {wrong}")) },
    }
}

fn live(cluster: &mut Cluster) -> Result<(), String> {
    cluster.network.weather = ROUGH;
    while cluster.now < STORM {
        cluster.trouble()?;
        cluster.step()?;
    }
    cluster.calm()?;
    let enough = cluster.tally.writes + STILL_BUSY;
    while !(cluster.quiet_from < cluster.now && cluster.is_at_rest()) {
        if cluster.now > STORM + CALM {
            return Err("the members did not come to agree".to_owned());
        }
        cluster.step()?;
        if cluster.tally.writes >= enough {
            cluster.quiet_from = cluster.quiet_from.min(cluster.now);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Tally, run};

    /// More of them: `cargo xtask sim store`.
    const SEEDS: u64 = 12;

    #[test]
    fn what_three_members_say_is_true_whatever_happens() {
        let mut all = Tally::default();
        for seed in 0..SEEDS {
            let run = run(seed);
            if let Err(wrong) = run.result {
                panic!("{wrong}\n\nagain: cargo xtask sim store --seeds 1 --from {seed}");
            }
            all.add(&run.tally);
        }
        let happened =
            [all.writes / 1000, all.conflicts, all.reads / 500, all.unknown, all.leaders / 20, all.cuts / 10];
        let damaged = all.refused + all.harmless;
        let seldom = [all.full, all.snapshots, all.replaced, damaged, all.resumed, all.relisted];
        assert!(happened.iter().chain(&seldom).all(|count| *count > 0), "too little happened: {all:?}");
    }

    #[test]
    fn a_seed_is_a_run() {
        assert_eq!(run(5), run(5));
    }
}
