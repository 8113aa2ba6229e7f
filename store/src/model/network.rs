//! Messages on their way: late, lost, doubled, out of order, and held back between members that are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::eraftpb::Message;

use super::dice::Dice;

/// What the network does to messages; one in so many, 0 never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
}

/// The weather of the storm.
pub(super) const ROUGH: Weather = Weather { lost: 40, doubled: 40, late: 15 };
/// For moments of it.
pub(super) const WILD: Weather = Weather { lost: 4, doubled: 6, late: 3 };

/// All messages that were sent and have not arrived.
#[derive(Default)]
pub(super) struct Network {
    pub(super) weather: Weather,
    /// By the time of arrival and the order of sending.
    under_way: BTreeMap<(Duration, u64), Message>,
    sent: u64,
    /// From whom to whom nothing goes.
    apart: BTreeSet<(u64, u64)>,
}

fn happens(dice: &mut Dice, one_in: u64) -> bool {
    one_in > 0 && dice.once_in(one_in)
}

impl Network {
    /// Takes a message along, or loses it, or takes it twice.
    pub(super) fn send(&mut self, message: Message, now: Duration, dice: &mut Dice) {
        if happens(dice, self.weather.lost) {
            return;
        }
        if happens(dice, self.weather.doubled) {
            self.post(message.clone(), now, dice);
        }
        self.post(message, now, dice);
    }

    fn post(&mut self, message: Message, now: Duration, dice: &mut Dice) {
        let late = happens(dice, self.weather.late);
        let takes = if late { dice.millis(50, 1500) } else { dice.millis(1, 20) };
        self.sent += 1;
        self.under_way.insert((now + takes, self.sent), message);
    }

    /// What arrives up to now. What is between members that are apart when it should arrive is lost.
    pub(super) fn arrivals(&mut self, now: Duration) -> Vec<Message> {
        let later = self.under_way.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut self.under_way, later);
        due.into_values().filter(|m| !self.apart.contains(&(m.from, m.to))).collect()
    }

    /// Nothing goes from `from` to `to` any more.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.apart.insert((from, to));
    }

    /// All can reach all.
    pub(super) fn heal(&mut self) {
        self.apart.clear();
    }
}
