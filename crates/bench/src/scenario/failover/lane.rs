//! One sender: a connection to the API or a publisher, with one message under way, at its pace.

use crate::fleet::LinkId;

/// Which message of which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    pub device: usize,
    pub sequence: u64,
    /// When it was sent first.
    pub sent_ns: u64,
}

/// Sends to devices `number`, `number + lanes`, and so on, in turn.
pub struct Lane {
    pub link: LinkId,
    number: usize,
    lanes: usize,
    devices: usize,
    rounds: u64,
    /// Errands begun.
    begun: u64,
    /// The one under way.
    pub errand: Option<Errand>,
    /// It has to be sent again, not before then.
    pub again_at_ns: Option<u64>,
}

impl Lane {
    /// A lane that has not sent anything.
    pub fn new(link: LinkId, number: usize, lanes: usize, devices: usize, rounds: u64) -> Lane {
        Lane {
            link,
            number,
            lanes,
            devices,
            rounds,
            begun: 0,
            errand: None,
            again_at_ns: None,
        }
    }

    /// Begins the next errand if it is due: `rate` a second of all lanes, since `start_ns`.
    pub fn begin(&mut self, now_ns: u64, start_ns: u64, rate: u64) -> Option<Errand> {
        let served = self
            .devices
            .saturating_sub(self.number)
            .div_ceil(self.lanes) as u64;
        if self.errand.is_some() || self.begun == served * self.rounds {
            return None;
        }
        // Lanes take turns.
        let before = self.begun * self.lanes as u64 + self.number as u64;
        if now_ns < start_ns + before * 1_000_000_000 / rate {
            return None;
        }
        self.errand = Some(Errand {
            device: self.number + (self.begun % served) as usize * self.lanes,
            sequence: self.begun / served,
            sent_ns: now_ns,
        });
        self.begun += 1;
        self.errand
    }

    /// The errand to send again, once its time has come.
    pub fn again(&mut self, now_ns: u64) -> Option<Errand> {
        self.again_at_ns.take_if(|at_ns| *at_ns <= now_ns)?;
        self.errand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_devices_and_time() {
        let mut seen = Vec::new();
        for number in 0..2 {
            let mut lane = Lane::new(LinkId(number), number, 2, 3, 2);
            let mut now_ns = 0;
            while now_ns < 10_000_000_000 {
                if let Some(errand) = lane.begin(now_ns, 0, 1) {
                    seen.push((now_ns / 1_000_000_000, errand.device, errand.sequence));
                    lane.errand = None;
                }
                now_ns += 1_000_000_000;
            }
        }
        seen.sort();
        let expect = [
            (0, 0, 0),
            (1, 1, 0),
            (2, 2, 0),
            (3, 1, 1),
            (4, 0, 1),
            (6, 2, 1),
        ];
        assert_eq!(seen, expect);
    }

    #[test]
    fn one_errand_at_a_time_and_again_when_told() {
        let mut lane = Lane::new(LinkId(0), 0, 1, 1, 2);
        let first = lane.begin(0, 0, 1000);
        assert_eq!(lane.begin(5_000_000, 0, 1000), None);
        lane.again_at_ns = Some(9);
        assert_eq!(lane.again(8), None);
        assert_eq!(lane.again(9), first);
        assert_eq!(lane.again(10), None);
    }
}
