//! Which of several waiting messages goes first.

/// Urgency of a push. A one-time password is high, a campaign is normal or low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Before all that waits.
    High,
    /// What a push has that does not say.
    #[default]
    Normal,
    /// When nothing else waits, but for the share that keeps it moving.
    Low,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }
}

/// Normal messages in a row after which a low one that waits has its turn.
pub const NORMAL_BEFORE_LOW: u8 = 15;

/// The first of each lane, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads<T> {
    /// First of the high lane.
    pub high: Option<T>,
    /// First of the normal lane.
    pub normal: Option<T>,
    /// First of the low lane.
    pub low: Option<T>,
}

/// Merges three lanes, each in its own order.
///
/// High goes first, always: whoever floods a device with urgent messages meets the app's quota, and a rule that lets something
/// overtake a password would be noticed when it hurts. Normal goes before low, except that one low message goes after
/// [`NORMAL_BEFORE_LOW`] normal ones in a row, so that a steady stream of normal ones cannot hold low ones until they expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    normal_in_a_row: u8,
}

impl Lanes {
    /// What goes next, or `None` when nothing waits. The caller sends it: it counts as gone.
    pub fn next<T>(&mut self, heads: Heads<T>) -> Option<(Priority, T)> {
        if let Some(high) = heads.high {
            return Some((Priority::High, high));
        }
        match (heads.normal, heads.low) {
            (Some(normal), None) => {
                // Nobody waits behind it, so nobody was overtaken.
                self.normal_in_a_row = 0;
                Some((Priority::Normal, normal))
            }
            (Some(normal), Some(_)) if self.normal_in_a_row < NORMAL_BEFORE_LOW => {
                self.normal_in_a_row += 1;
                Some((Priority::Normal, normal))
            }
            (_, Some(low)) => {
                self.normal_in_a_row = 0;
                Some((Priority::Low, low))
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn heads(high: bool, normal: bool, low: bool) -> Heads<()> {
        Heads {
            high: high.then_some(()),
            normal: normal.then_some(()),
            low: low.then_some(()),
        }
    }

    #[test]
    fn high_overtakes_everything_and_low_keeps_moving() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.next(heads(false, false, false)), None);
        for _ in 0..100 {
            assert_eq!(
                lanes.next(heads(true, true, true)),
                Some((Priority::High, ()))
            );
        }
        let order: String = (0..33)
            .filter_map(|_| lanes.next(heads(false, true, true)))
            .map(|(priority, ())| &priority.name()[..1])
            .collect();
        let row = "n".repeat(15);
        assert_eq!(order, format!("{row}l{row}ln"));
    }

    proptest! {
        #[test]
        fn lanes_keep_their_own_order_and_nothing_is_lost(arrivals in prop::collection::vec((0..4_usize, 0..5_u8), 0..200)) {
            let mut lanes = Lanes::default();
            let mut waiting: [VecDeque<usize>; 3] = Default::default();
            let mut gone: [Vec<usize>; 3] = Default::default();
            let mut step = |waiting: &mut [VecDeque<usize>; 3]| {
                let heads = Heads {
                    high: waiting[0].front().copied(),
                    normal: waiting[1].front().copied(),
                    low: waiting[2].front().copied(),
                };
                let next = lanes.next(heads);
                if let Some((priority, item)) = next {
                    let lane = Priority::ALL.iter().position(|p| *p == priority).unwrap();
                    assert_eq!(waiting[lane].pop_front(), Some(item));
                    assert!(lane == 0 || heads.high.is_none());
                    gone[lane].push(item);
                }
                next.is_some()
            };
            for (index, (lane, sends)) in arrivals.iter().enumerate() {
                if let Some(lane) = waiting.get_mut(*lane) {
                    lane.push_back(index);
                }
                for _ in 0..*sends {
                    step(&mut waiting);
                }
            }
            while step(&mut waiting) {}
            for (lane, gone) in gone.iter().enumerate() {
                let all: Vec<usize> = (0..arrivals.len()).filter(|index| arrivals[*index].0 == lane).collect();
                prop_assert_eq!(gone, &all);
            }
        }
    }
}
