//! The one who replaces members: the new one learns, gets a voice, and then the old one goes.

use std::time::Duration;

use super::cluster::{Cluster, State};
use crate::embedded::Change;

/// How often the operator looks.
const LOOK: Duration = Duration::from_millis(200);
/// A member that was removed runs on for so long; nobody may mind.
const LINGER: Duration = Duration::from_secs(2);

/// What the operator does.
pub(super) struct Operator {
    job: Option<Job>,
    next_id: u64,
    next_look: Duration,
}

#[derive(Clone, Copy)]
struct Job {
    old: u64,
    new: u64,
    /// When the old one is taken away.
    ends: Option<Duration>,
}

impl Operator {
    pub(super) fn new(next_id: u64) -> Self {
        Self { job: None, next_id, next_look: Duration::ZERO }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none()
    }
}

impl Cluster {
    /// Begins to replace a member. A number is never used twice.
    pub(super) fn replace(&mut self, old: u64) -> Result<(), String> {
        if !self.operator.is_idle() {
            return Ok(());
        }
        let new = self.operator.next_id;
        self.operator.next_id += 1;
        self.operator.job = Some(Job { old, new, ends: None });
        self.note(format!("{new} shall replace {old}"));
        self.add(new)
    }

    /// Does whatever brings the group closer to what it shall be, by what the leader says it is.
    pub(super) fn step_operator(&mut self) -> Result<(), String> {
        if self.now < self.operator.next_look {
            return Ok(());
        }
        self.operator.next_look = self.now + LOOK;
        let Some(job) = self.operator.job else { return self.look_for_losses() };
        if let Some(ends) = job.ends {
            if ends <= self.now {
                self.take_away(job);
            }
            return Ok(());
        }
        let Some(leader) = self.leading().pop() else { return Ok(()) };
        let members = self.member(leader).map(|m| (m.members().0.to_vec(), m.members().1.to_vec()));
        let (voters, learners) = members.unwrap_or_default();
        if learners.contains(&job.new) {
            self.ask_for(leader, Change::Voter(job.new));
        } else if !voters.contains(&job.new) {
            self.ask_for(leader, Change::Learner(job.new));
        } else if !voters.contains(&job.old) {
            self.operator.job = Some(Job { ends: Some(self.now + LINGER), ..job });
        } else if leader == job.old {
            let others: Vec<u64> = voters.into_iter().filter(|id| *id != leader).collect();
            let to = self.dice.pick(&others).unwrap_or(job.new);
            self.member(leader).into_iter().for_each(|member| member.yield_lead(to));
        } else {
            self.ask_for(leader, Change::Remove(job.old));
        }
        Ok(())
    }

    fn ask_for(&mut self, leader: u64, change: Change) {
        self.note(format!("{leader} is asked: {change:?}"));
        let ticket = self.ticket();
        self.member(leader).into_iter().for_each(|member| member.change(ticket, change));
    }

    fn look_for_losses(&mut self) -> Result<(), String> {
        let lost = self.machines.iter().find(|(_, machine)| matches!(machine.state, State::Lost));
        lost.map(|(id, _)| *id).map_or(Ok(()), |id| self.replace(id))
    }

    fn take_away(&mut self, job: Job) {
        self.machines.remove(&job.old);
        self.forget(job.old);
        self.operator.job = None;
        self.tally.replaced += 1;
        self.note(format!("{} is gone", job.old));
    }
}
