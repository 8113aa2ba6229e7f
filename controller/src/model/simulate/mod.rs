//! Seeded runs: first a storm of all that may go wrong, with impatient users and dying pods, then a calm in which all
//! must come to what was asked for. After every step checkers look at what was decided and written.
//!
//! A seed decides everything: the same seed makes the same run, to the byte.

mod batch;
mod decisions;
mod garbage;
mod rollout;
mod writes;

use reconcile::Controller;

use super::cluster::{Chaos, Cluster, Step};
use writes::Watcher;

/// The most steps of the calm between two waits.
const CALM: usize = 20_000;
/// Seconds without a write after which all has come to rest: longer than any controller waits before it looks again.
const QUIET: i64 = 40;
/// Lines of a failed run that are shown.
const TAIL: usize = 80;

/// What a run did and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Every step, effect and doing of users, a line each.
    pub trace: Vec<String>,
    /// What was wrong, if anything.
    pub result: Result<(), String>,
}

/// One story: which controllers, what users do, and what must be true in the end.
struct Story {
    name: &'static str,
    controllers: fn() -> Vec<Box<dyn Controller>>,
    /// Steps of the storm.
    steps: usize,
    begin: fn(&mut Cluster),
    /// Somebody does something.
    user: fn(&mut Cluster, &mut Watcher),
    /// Users have had their last wish.
    end: fn(&mut Cluster),
    converged: fn(&Cluster) -> Result<(), String>,
}

const STORIES: [Story; 3] = [rollout::STORY, garbage::STORY, batch::STORY];

/// Runs one seed through all stories.
pub fn run(seed: u64) -> Run {
    let mut trace = Vec::new();
    for story in &STORIES {
        let (lines, result) = tell(story, seed);
        trace.extend(lines);
        if let Err(wrong) = result {
            let tail = trace.len().saturating_sub(TAIL);
            let shown = trace.get(tail..).unwrap_or_default().join("\n");
            return Run { result: Err(format!("seed {seed}, {}: {wrong}\n{shown}", story.name)), trace };
        }
    }
    Run { trace, result: Ok(()) }
}

fn tell(story: &Story, seed: u64) -> (Vec<String>, Result<(), String>) {
    let mut cluster = Cluster::new((story.controllers)(), seed);
    cluster.check = Some(decisions::check);
    (story.begin)(&mut cluster);
    cluster.chaos = Chaos { refused: 30, answer_lost: 30, doubled: 100, relist: 20, crash: 2 };
    let mut watcher = Watcher::default();
    let result = storm(story, &mut cluster, &mut watcher).and_then(|()| calm(story, &mut cluster, &mut watcher));
    (std::mem::take(&mut cluster.trace), result)
}

fn storm(story: &Story, cluster: &mut Cluster, watcher: &mut Watcher) -> Result<(), String> {
    for _ in 0..story.steps {
        match cluster.random(1000) {
            0..15 => (story.user)(cluster, watcher),
            15..60 => one_kubelet(cluster),
            60..70 => cluster.step(Step::Timer),
            _ => any_step(cluster),
        }
        if cluster.crashes() {
            cluster.trace.push("the controllers crash".into());
            cluster.restart();
        }
        look(cluster, watcher)?;
    }
    Ok(())
}

fn look(cluster: &mut Cluster, watcher: &mut Watcher) -> Result<(), String> {
    watcher.look(&cluster.server)?;
    cluster.wrong.take().map_or(Ok(()), Err)
}

fn any_step(cluster: &mut Cluster) {
    let steps = cluster.steps();
    if let Some(step) = cluster.pick(steps) {
        cluster.trace.push(format!("{step:?}"));
        cluster.step(step);
    }
}

fn one_kubelet(cluster: &mut Cluster) {
    let pods = cluster.server.typed();
    if let Some(pod) = cluster.pick(pods) {
        cluster.kubelet_of(&pod);
    }
}

fn calm(story: &Story, cluster: &mut Cluster, watcher: &mut Watcher) -> Result<(), String> {
    cluster.chaos = Chaos::default();
    (story.end)(cluster);
    cluster.trace.push("calm".into());
    for _ in 0..200 {
        let before = cluster.server.revision();
        if !cluster.settle(CALM) {
            return Err("it does not settle".into());
        }
        cluster.kubelet();
        if !cluster.wait(QUIET, CALM) {
            return Err("it does not settle while time passes".into());
        }
        look(cluster, watcher)?;
        if cluster.server.revision() == before {
            (story.converged)(cluster)?;
            return stays(cluster);
        }
    }
    Err("it never comes to rest".into())
}

/// What is as it should be is left alone, also by controllers that begin anew.
fn stays(cluster: &mut Cluster) -> Result<(), String> {
    let (before, done) = (cluster.server.revision(), cluster.trace.len());
    cluster.restart();
    if !cluster.settle(CALM) {
        return Err("it does not settle after a restart".into());
    }
    let writes = cluster.trace.get(done..).unwrap_or_default();
    if cluster.server.revision() != before || !writes.is_empty() {
        return Err(format!("written without a cause after a restart:\n{}", writes.join("\n")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::run;

    /// What takes part in every run of the tests; `cargo xtask sim` goes on from there.
    const SEEDS: u64 = 20;

    #[test]
    fn after_every_storm_all_comes_to_what_was_asked_for() {
        for seed in 0..SEEDS {
            run(seed).result.unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }

    #[test]
    fn a_seed_makes_the_same_run_to_the_byte() {
        for seed in [1, 7_919] {
            let (once, twice) = (run(seed), run(seed));
            assert!(once.trace.len() > 1_000, "{}", once.trace.len());
            assert_eq!(once.trace.join("\n"), twice.trace.join("\n"));
        }
        assert_ne!(run(1).trace, run(2).trace);
    }
}
