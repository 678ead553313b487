//! Where devices should connect, and how many should move.
//!
//! Both are arithmetic over what nodes say of themselves, so that every node comes to the same answer without asking the others.

use super::peer::Load;

/// An emptier node gets at most this many times what it would get at the average fill, a fuller one at least the inverse: figures are a few
/// seconds old, and a storm that all went to the emptiest node would overfill it before anybody saw.
const STRONGEST_PULL: f64 = 4.0;

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Its name.
    pub name: &'a str,
    /// How full it is.
    pub load: Load,
    /// It takes no new devices.
    pub draining: bool,
}

/// The order in which a device should try the nodes, as indices: draining ones are left out, full ones come last.
///
/// The order is random, weighted by free capacity and by how far a node is below the average fill, and the same for the same `seed`: with a
/// [seed of the device](seed_of) it comes back to the same node while little changes, with a random one a storm spreads over all.
pub fn order(nodes: &[Standing<'_>], seed: u64) -> Vec<usize> {
    let open = || nodes.iter().enumerate().filter(|(_, node)| !node.draining);
    let connections: u64 = open().map(|(_, node)| node.load.connections).sum();
    let capacity: u64 = open().map(|(_, node)| node.load.capacity).sum();
    let average = (connections + 1) as f64 / capacity.max(1) as f64;
    let weight = |load: Load| {
        let free = load.capacity.saturating_sub(load.connections) as f64;
        let fill = (load.connections + 1) as f64 / load.capacity.max(1) as f64;
        free * (average / fill).clamp(1.0 / STRONGEST_PULL, STRONGEST_PULL)
    };
    // Weighted rendezvous hashing: the first of these exponential variables is a node's with a probability in proportion to its weight.
    let mut scored: Vec<(f64, usize)> = open()
        .map(|(index, node)| {
            let arrival = -uniform(seed, node.name).ln() / weight(node.load);
            (arrival, index)
        })
        .collect();
    scored.sort_by(|a, b| {
        a.0.total_cmp(&b.0)
            .then(nodes[a.1].name.cmp(nodes[b.1].name))
    });
    scored.into_iter().map(|(_, index)| index).collect()
}

/// The seed that a device always has, whichever node is asked.
pub fn seed_of(app: &str, device: &str) -> u64 {
    hash(hash(0, app), device)
}

/// Devices that the node `own` should send elsewhere: to whom (as index) and how many.
///
/// A node's fair share is in proportion to its capacity. Only nodes more than `tolerance_percent` above theirs send, only what is above it, and
/// no node is sent more than it lacks, by all senders together, if they go by the same figures. Draining nodes take no part.
pub fn moves(nodes: &[Standing<'_>], own: &str, tolerance_percent: u8) -> Vec<(usize, u64)> {
    let takes_part = |node: &Standing<'_>| !node.draining && node.load.capacity > 0;
    let mut taking_part: Vec<usize> = (0..nodes.len())
        .filter(|index| takes_part(&nodes[*index]))
        .collect();
    taking_part.sort_by_key(|index| nodes[*index].name);
    let sum = |figure: fn(&Load) -> u64| -> u128 {
        let figures = taking_part.iter().map(|index| figure(&nodes[*index].load));
        figures.map(u128::from).sum()
    };
    let (connections, capacity) = (sum(|load| load.connections), sum(|load| load.capacity));
    let share = |load: Load| Share {
        dividend: connections * u128::from(load.capacity),
        divisor: capacity,
    };

    // What each lacks, in order, and how much of it the senders before `own` fill.
    let mut skip: u64 = 0;
    let mut ours: u64 = 0;
    for index in &taking_part {
        let node = &nodes[*index];
        let surplus = share(node.load).surplus(node.load, tolerance_percent);
        if node.name == own {
            ours = surplus;
            break;
        }
        skip = skip.saturating_add(surplus);
    }
    let mut moves = Vec::new();
    for index in taking_part {
        let mut lack = share(nodes[index].load).lack(nodes[index].load);
        let filled = lack.min(skip);
        skip -= filled;
        lack -= filled;
        let sent = lack.min(ours);
        ours -= sent;
        if sent > 0 {
            moves.push((index, sent));
        }
    }
    moves
}

/// A fair share of devices, as a fraction.
struct Share {
    dividend: u128,
    divisor: u128,
}

impl Share {
    fn surplus(&self, load: Load, tolerance_percent: u8) -> u64 {
        let connections = u128::from(load.connections);
        let tolerated = self.dividend * (100 + u128::from(tolerance_percent));
        if connections * self.divisor * 100 <= tolerated {
            return 0;
        }
        narrow(connections.saturating_sub(self.dividend.div_ceil(self.divisor)))
    }

    fn lack(&self, load: Load) -> u64 {
        let wanted = narrow(self.dividend / self.divisor).min(load.capacity);
        wanted.saturating_sub(load.connections)
    }
}

fn narrow(wide: u128) -> u64 {
    wide.try_into().unwrap_or(u64::MAX)
}

/// Decides when a node sends devices elsewhere: in rounds, each of which begins only when the figures show what the round before did.
///
/// Going by older figures, a node would send the same surplus twice, and the receiver would send it back.
#[derive(Clone, Debug)]
pub struct Balancer {
    tolerance_percent: u8,
    settle_ms: u64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Resting { not_before_ms: u64 },
    Moving,
}

impl Balancer {
    /// Figures of all nodes are at most `settle_ms` old.
    pub fn new(tolerance_percent: u8, settle_ms: u64) -> Balancer {
        Balancer {
            tolerance_percent,
            settle_ms,
            state: State::Resting { not_before_ms: 0 },
        }
    }

    /// Begins a round if there is reason to: whom to send devices, and how many. Then call [`Balancer::finish`] when they are sent, or given up.
    pub fn begin(
        &mut self,
        nodes: &[Standing<'_>],
        own: &str,
        now_ms: u64,
    ) -> Option<Vec<(usize, u64)>> {
        match self.state {
            State::Resting { not_before_ms } if now_ms >= not_before_ms => {}
            _ => return None,
        }
        let moves = moves(nodes, own, self.tolerance_percent);
        if moves.is_empty() {
            return None;
        }
        self.state = State::Moving;
        Some(moves)
    }

    /// Ends a round.
    pub fn finish(&mut self, now_ms: u64) {
        self.state = State::Resting {
            not_before_ms: now_ms.saturating_add(self.settle_ms),
        };
    }
}

/// In 0 < u <= 1, the same for the same seed and name on every node and in every version.
fn uniform(seed: u64, name: &str) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    ((hash(seed, name) >> 11) as f64 + 1.0) / STEPS
}

/// FNV-1a with the finalizer of SplitMix64, since FNV alone leaves the high bits of short texts poor.
fn hash(seed: u64, text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn standing(name: &'static str, connections: u64, capacity: u64) -> Standing<'static> {
        Standing {
            name,
            load: Load {
                connections,
                capacity,
            },
            draining: false,
        }
    }

    fn firsts(nodes: &[Standing<'_>]) -> Vec<u32> {
        let mut firsts = vec![0; nodes.len()];
        for device in 0..10_000 {
            firsts[order(nodes, seed_of("shop", &format!("device-{device}")))[0]] += 1;
        }
        firsts
    }

    #[test]
    fn equal_nodes_get_equal_parts_of_a_storm() {
        let nodes = ["a", "b", "c"].map(|name| standing(name, 500, 10_000));
        for count in firsts(&nodes) {
            assert!((3133..=3533).contains(&count), "{count}");
        }
    }

    #[test]
    fn an_emptier_node_gets_more_but_never_all() {
        let nodes = [
            standing("a", 5000, 1_000_000),
            standing("b", 5000, 1_000_000),
            standing("new", 0, 1_000_000),
        ];
        let new = firsts(&nodes)[2];
        assert!((6000..=8000).contains(&new), "{new}");
    }

    #[test]
    fn draining_nodes_are_left_out_and_full_ones_come_last() {
        let draining = Standing {
            draining: true,
            ..standing("b", 0, 100)
        };
        let nodes = [standing("a", 100, 100), draining, standing("c", 99, 100)];
        for seed in 0..100 {
            assert_eq!(order(&nodes, seed), [2, 0]);
        }
        assert_eq!(order(&[draining], 1), [0; 0]);
    }

    #[test]
    fn a_device_stays_with_its_node_while_little_changes() {
        let at = |connections| ["a", "b", "c"].map(|name| standing(name, connections, 10_000));
        let mut nodes = at(500);
        let before: Vec<usize> = (0..1000).map(|seed| order(&nodes, seed)[0]).collect();
        nodes[0].load.connections = 510;
        let moved = (0..1000)
            .filter(|seed| order(&nodes, *seed as u64)[0] != before[*seed])
            .count();
        assert!(moved < 20, "{moved}");
    }

    #[test]
    fn a_joining_node_gets_its_share_from_those_above_theirs() {
        let nodes = [
            standing("a", 300, 1000),
            standing("b", 300, 1000),
            standing("new", 0, 1000),
        ];
        assert_eq!(moves(&nodes, "a", 10), [(2, 100)]);
        assert_eq!(moves(&nodes, "b", 10), [(2, 100)]);
        assert_eq!(moves(&nodes, "new", 10), []);
        assert_eq!(moves(&nodes, "nobody", 10), []);
    }

    #[test]
    fn nothing_moves_within_the_tolerance_or_when_nobody_would_be_better_off() {
        let near = [standing("a", 109, 1000), standing("b", 91, 1000)];
        assert_eq!(moves(&near, "a", 10), []);
        let few = [standing("a", 1, 1000), standing("b", 0, 1000)];
        assert_eq!(moves(&few, "a", 10), []);
        let full = [standing("a", 900, 100), standing("b", 100, 100)];
        assert_eq!(moves(&full, "a", 10), []);
        let alone = [standing("a", 900, 1000)];
        assert_eq!(moves(&alone, "a", 10), []);
        let draining = Standing {
            draining: true,
            ..standing("b", 0, 1000)
        };
        assert_eq!(moves(&[alone[0], draining], "a", 10), []);
        assert_eq!(moves(&[], "a", 10), []);
    }

    /// A node in the world of the property.
    struct Mover {
        balancer: Balancer,
        orders: VecDeque<(usize, u64)>,
    }

    /// Lets all nodes balance by figures that are one step old, until nothing happens any more. Returns how many devices moved.
    fn settle(loads: &mut [Load], tolerance_percent: u8, rate: u64) -> u64 {
        let mut movers: Vec<Mover> = (0..loads.len())
            .map(|_| Mover {
                balancer: Balancer::new(tolerance_percent, 2),
                orders: VecDeque::new(),
            })
            .collect();
        let mut published = loads.to_vec();
        let (mut moved, mut quiet) = (0, 0);
        for now_ms in 0..100_000 {
            let seen = std::mem::replace(&mut published, loads.to_vec());
            let standings: Vec<Standing<'_>> = seen
                .iter()
                .zip(NAMES)
                .map(|(load, name)| Standing {
                    name,
                    load: *load,
                    draining: false,
                })
                .collect();
            quiet += 1;
            for (own, mover) in movers.iter_mut().enumerate() {
                if let Some(orders) = mover.balancer.begin(&standings, NAMES[own], now_ms) {
                    mover.orders = orders.into();
                }
                let mut left = rate;
                while let Some((to, count)) = mover.orders.pop_front() {
                    let now = count.min(left);
                    left -= now;
                    moved += now;
                    loads[own].connections -= now;
                    loads[to].connections += now;
                    if now < count {
                        mover.orders.push_front((to, count - now));
                        break;
                    }
                    if mover.orders.is_empty() {
                        mover.balancer.finish(now_ms);
                    }
                }
                if left < rate {
                    quiet = 0;
                }
            }
            if quiet > 5 {
                return moved;
            }
        }
        panic!("no end: {loads:?}");
    }

    proptest! {
        #[test]
        fn balance_is_reached_without_oscillation_by_figures_that_are_a_step_old(
            figures in prop::collection::vec((0_u64..5000, 1_u64..10), 1..=8),
            tolerance_percent in 1_u8..50,
            rate in 1_u64..10_000,
        ) {
            let total: u64 = figures.iter().map(|(connections, _)| connections).sum();
            let sizes: u64 = figures.iter().map(|(_, size)| size).sum();
            let mut loads: Vec<Load> = figures
                .iter()
                .map(|(connections, size)| Load { connections: *connections, capacity: size * 50_000 })
                .collect();
            let shares: Vec<f64> = figures.iter().map(|(_, size)| (total * size) as f64 / sizes as f64).collect();
            let surplus: f64 = figures.iter().zip(&shares).map(|((connections, _), share)| (*connections as f64 - share).max(0.0)).sum();

            let moved = settle(&mut loads, tolerance_percent, rate.max(total / 1000 + 1));

            prop_assert!(moved as f64 <= surplus + 1e-6, "{moved} moved, {surplus} above the shares");
            prop_assert_eq!(loads.iter().map(|load| load.connections).sum::<u64>(), total);
            let count = loads.len() as f64;
            for (load, share) in loads.iter().zip(&shares) {
                let most = share * (1.0 + f64::from(tolerance_percent) / 100.0) + count;
                prop_assert!(load.connections as f64 <= most, "{load:?}, share {share}");
            }
        }
    }
}
