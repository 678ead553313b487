//! The lanes of an inbox: what of several waiting messages goes first.

/// A lane of an inbox. Within it the order of acceptance holds; between lanes, [`Turns`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Before all that waits: a one-time password.
    High,
    /// Where a message waits of which nothing else is said; the app's push log is as urgent.
    #[default]
    Normal,
    /// When nothing else waits, but for the share that keeps it moving.
    Low,
}

impl Lane {
    /// All, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::High, Lane::Normal, Lane::Low];

    /// The number that stands for it in stores and between nodes. 0 is that of messages from before there were lanes.
    pub fn code(self) -> u8 {
        match self {
            Lane::Normal => 0,
            Lane::High => 1,
            Lane::Low => 2,
        }
    }

    /// The lane of a number, or `None` for one that a later version gave.
    pub fn from_code(code: u64) -> Option<Lane> {
        Lane::ALL
            .into_iter()
            .find(|lane| u64::from(lane.code()) == code)
    }
}

/// Some of the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSet(u8);

impl LaneSet {
    /// None.
    pub const NONE: LaneSet = LaneSet(0);
    /// Every lane.
    pub const ALL: LaneSet = LaneSet(0b111);

    /// Whether a lane is among them.
    pub fn contains(self, lane: Lane) -> bool {
        self.0 & (1 << lane.code()) != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self == LaneSet::NONE
    }

    /// Adds lanes.
    pub fn add(&mut self, lanes: LaneSet) {
        self.0 |= lanes.0;
    }
}

impl From<Lane> for LaneSet {
    fn from(lane: Lane) -> LaneSet {
        LaneSet(1 << lane.code())
    }
}

impl FromIterator<Lane> for LaneSet {
    fn from_iter<I: IntoIterator<Item = Lane>>(lanes: I) -> LaneSet {
        let mut set = LaneSet::NONE;
        lanes.into_iter().for_each(|lane| set.add(lane.into()));
        set
    }
}

/// Normal messages in a row after which a low one that waits has its turn.
pub const NORMAL_BEFORE_LOW: u8 = 15;

/// Whose turn it is, lane by lane.
///
/// High goes first, always: whoever floods a device with urgent messages meets the app's quota, and a rule that lets something
/// overtake a password would be noticed when it hurts. Normal goes before low, except that one low message goes after
/// [`NORMAL_BEFORE_LOW`] normal ones in a row, so that a steady stream of normal ones cannot hold low ones until they expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    normal_in_a_row: u8,
}

impl Turns {
    /// The lane whose turn it is, of those in which something waits.
    pub fn next(&self, waiting: LaneSet) -> Option<Lane> {
        let low_is_due = self.normal_in_a_row >= NORMAL_BEFORE_LOW;
        let order = match low_is_due {
            false => [Lane::High, Lane::Normal, Lane::Low],
            true => [Lane::High, Lane::Low, Lane::Normal],
        };
        order.into_iter().find(|lane| waiting.contains(*lane))
    }

    /// One of a lane was sent while something waited in `waiting`.
    pub fn sent(&mut self, lane: Lane, waiting: LaneSet) {
        match lane {
            Lane::High => {}
            Lane::Normal if waiting.contains(Lane::Low) => self.normal_in_a_row += 1,
            // Nobody waits behind it, so nobody was overtaken.
            Lane::Normal | Lane::Low => self.normal_in_a_row = 0,
        }
    }
}

/// Kept messages in a row, of the inbox and the push log, after which a campaign of the same lane that waits has its turn.
pub const KEPT_BEFORE_CAMPAIGN: u8 = 15;

/// Of what waits in a lane, whether a message that is kept for the client goes next, or a campaign whose turn it is.
///
/// A campaign is for many, and what is kept may be for this client alone: so it goes first, but for a share that keeps campaigns moving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CampaignShare {
    kept_in_a_row: [u8; 3],
}

impl CampaignShare {
    /// Whether a campaign that waits in a lane goes next. `kept`: lanes in which something else waits.
    pub fn is_due(&self, lane: Lane, kept: LaneSet) -> bool {
        !kept.contains(lane) || self.kept_in_a_row[usize::from(lane.code())] >= KEPT_BEFORE_CAMPAIGN
    }

    /// Something else of a lane, in which a campaign waits, was sent.
    pub fn passed_over(&mut self, lane: Lane) {
        let in_a_row = &mut self.kept_in_a_row[usize::from(lane.code())];
        *in_a_row = in_a_row.saturating_add(1);
    }

    /// A campaign of a lane was sent.
    pub fn sent(&mut self, lane: Lane) {
        self.kept_in_a_row[usize::from(lane.code())] = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn take_turn(turns: &mut Turns, waiting: LaneSet) -> Option<Lane> {
        let lane = turns.next(waiting)?;
        turns.sent(lane, waiting);
        Some(lane)
    }

    #[test]
    fn high_overtakes_everything_and_low_keeps_moving() {
        let mut turns = Turns::default();
        assert_eq!(take_turn(&mut turns, LaneSet::NONE), None);
        for _ in 0..100 {
            assert_eq!(take_turn(&mut turns, LaneSet::ALL), Some(Lane::High));
        }
        let both = LaneSet::from_iter([Lane::Normal, Lane::Low]);
        let order: String = (0..33)
            .filter_map(|_| take_turn(&mut turns, both))
            .map(|lane| match lane {
                Lane::High => 'h',
                Lane::Normal => 'n',
                Lane::Low => 'l',
            })
            .collect();
        let row = "n".repeat(15);
        assert_eq!(order, format!("{row}l{row}ln"));
    }

    #[test]
    fn a_campaign_goes_after_a_row_of_what_is_kept() {
        let mut share = CampaignShare::default();
        let kept = LaneSet::from(Lane::Normal);
        assert!(share.is_due(Lane::Low, kept));
        for _ in 0..KEPT_BEFORE_CAMPAIGN {
            assert!(!share.is_due(Lane::Normal, kept));
            share.passed_over(Lane::Normal);
        }
        assert!(share.is_due(Lane::Normal, kept));
        share.sent(Lane::Normal);
        assert!(!share.is_due(Lane::Normal, kept));
    }

    #[test]
    fn codes_go_both_ways() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_code(lane.code().into()), Some(lane));
        }
        assert_eq!(Lane::from_code(3), None);
        assert_eq!(LaneSet::from_iter(Lane::ALL), LaneSet::ALL);
    }

    proptest! {
        #[test]
        fn all_get_their_turn_and_nothing_overtakes_what_is_high(arrivals in prop::collection::vec((0..4_usize, 0..5_u8), 0..200)) {
            let mut turns = Turns::default();
            let mut waiting: [VecDeque<usize>; 3] = Default::default();
            let mut gone: [Vec<usize>; 3] = Default::default();
            let mut step = |waiting: &mut [VecDeque<usize>; 3]| {
                let lanes = Lane::ALL.into_iter().filter(|lane| !waiting[lane.code() as usize].is_empty()).collect();
                let lane = take_turn(&mut turns, lanes);
                if let Some(lane) = lane {
                    assert!(lane == Lane::High || !lanes.contains(Lane::High));
                    let item = waiting[lane.code() as usize].pop_front().unwrap();
                    gone[lane.code() as usize].push(item);
                }
                lane.is_some()
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
