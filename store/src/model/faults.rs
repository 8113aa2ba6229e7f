//! The storm: what goes wrong, and when.

use std::time::Duration;

use super::cluster::{Cluster, FOUNDERS, STEP, State};
use super::network::{ROUGH, WILD};
use crate::embedded::disk::Disk;
use crate::embedded::lossy::Unsynced;
use crate::embedded::{Identity, Member};

/// The storm lasts so long.
pub(super) const STORM: Duration = Duration::from_secs(30);
/// A fault happens about that often.
const EVERY: Duration = Duration::from_millis(800);

impl Cluster {
    /// Perhaps something goes wrong now.
    pub(super) fn trouble(&mut self) -> Result<(), String> {
        if !self.dice.once_in((EVERY.as_millis() / STEP.as_millis()) as u64) {
            return Ok(());
        }
        let machines: Vec<u64> = self.machines.keys().copied().collect();
        let running = self.running();
        let leading = self.leading();
        // Who leads is hit as often as all others together.
        let victims = if self.dice.once_in(2) && !leading.is_empty() { &leading } else { &running };
        let Some(victim) = self.dice.pick(victims) else { return Ok(()) };
        match self.dice.below(24) {
            0..3 => self.part(victim, &machines),
            3..7 => {
                self.network.heal();
                self.network.weather = ROUGH;
            }
            7..10 => self.cut_power(victim)?,
            10..12 => self.blow_fuse(victim),
            12..14 => self.kill(victim, "killed"),
            14..16 => self.sleep(victim),
            16 => self.fill(victim),
            17..20 => self.damage()?,
            20 => running.iter().try_for_each(|id| self.cut_power(*id))?,
            21 => self.network.weather = WILD,
            22 => self.yield_lead(victim),
            _ => self.replace(victim)?,
        }
        Ok(())
    }

    /// One is apart from all others: both ways, or only in one.
    fn part(&mut self, one: u64, machines: &[u64]) {
        let ways = self.dice.below(3);
        for other in machines.iter().filter(|id| **id != one) {
            if ways != 0 {
                self.network.cut(one, *other);
            }
            if ways != 1 {
                self.network.cut(*other, one);
            }
        }
        self.note(format!("{one} is apart ({ways})"));
    }

    /// The power will fail in the middle of a write.
    fn blow_fuse(&mut self, id: u64) {
        let bytes = self.dice.below(4000);
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.disk.fuse(machine.disk.written() + bytes);
        self.note(format!("{id} loses power {bytes} bytes on"));
    }

    fn sleep(&mut self, id: u64) {
        let until = self.now + self.dice.millis(100, 4000);
        if let Some(State::Runs(process)) = self.machines.get_mut(&id).map(|machine| &mut machine.state) {
            process.sleeps_until = until;
            self.note(format!("{id} sleeps until {:.3}", until.as_secs_f64()));
        }
    }

    /// A disk is full, or has room again.
    fn fill(&mut self, id: u64) {
        let (room, full) = (self.dice.below(6000), self.dice.once_in(2));
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let capacity = full.then(|| machine.disk.used() + room);
        machine.disk.capacity(capacity);
        self.note(format!("{id} has room for {}", capacity.map_or("all".to_owned(), |_| format!("{room} bytes"))));
    }

    fn yield_lead(&mut self, id: u64) {
        let running = self.running();
        let Some(to) = self.dice.pick(&running) else { return };
        if let Some(member) = self.member(id).filter(|member| member.leads()) {
            member.yield_lead(to);
            self.note(format!("{id} yields the lead to {to}"));
        }
    }

    /// A bit of a machine that is down turns. Either it refuses to start or it has lost nothing. One such machine at a
    /// time: more than that no group of three survives.
    fn damage(&mut self) -> Result<(), String> {
        let sound = |state: &State| !matches!(state, State::Lost);
        let safe = self.operator.is_idle() && self.machines.values().all(|m| sound(&m.state) && m.damage.is_none());
        let down = self.machines.iter().find(|(_, machine)| matches!(machine.state, State::Down(_)));
        let Some(id) = down.map(|(id, _)| *id).filter(|_| safe) else { return Ok(()) };
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let copy = || machine.disk.after_power_cut(Unsynced::Kept);
        let (before, after, damaged) = (copy(), copy(), copy());
        let names: Vec<String> = before.list().map_err(|e| e.to_string())?;
        let names: Vec<&String> = names.iter().filter(|name| !name.ends_with(".tmp")).collect();
        let Some(name) = self.dice.pick(&names) else { return Ok(()) };
        let size = before.read(name).map_err(|e| e.to_string())?.len();
        let (offset, bit) = (self.dice.below(size as u64) as usize, self.dice.below(8));
        for disk in [&after, &damaged] {
            disk.damage(name, offset, |byte| byte ^ (1 << bit));
        }
        let identity = Identity { cluster: 1, member: id, voters: FOUNDERS.to_vec() };
        let open = |disk| Member::open(disk, super::settings(), &identity, 1).map(|m| (m.vote(), m.log_end()));
        if let Ok(found) = open(after) {
            let had = open(before).map_err(|error| format!("{id} does not start: {error}"))?;
            if had != found {
                return Err(format!(
                    "bit {bit} of {name} at {offset} of {id} turned: it had {had:?}, it has {found:?}"
                ));
            }
            self.tally.harmless += 1;
        }
        machine.disk = damaged;
        machine.damage = Some((name.clone(), offset));
        self.note(format!("bit {bit} of {name} at {offset} of {id} turns"));
        Ok(())
    }

    /// The storm is over: everything works from now on.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.note("calm");
        self.network.heal();
        self.network.weather = Default::default();
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            let Some(machine) = self.machines.get_mut(&id) else { continue };
            machine.disk.capacity(None);
            machine.disk.fuse(u64::MAX);
            match &mut machine.state {
                State::Runs(process) => process.sleeps_until = self.now,
                State::Down(_) => self.start(id)?,
                State::Lost => {}
            }
        }
        Ok(())
    }
}
