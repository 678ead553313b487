//! The connections of a shard, by slot.

use campanile_broker::ids::ConnId;

use super::connection::Connection;

/// Connections by slot. A slot is used again, but not before [`Slab::recycle`], so that output of a turn never reaches its next user.
#[derive(Debug, Default)]
pub struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    freed_this_turn: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    use_count: u32,
    connection: Option<Connection>,
}

impl Slab {
    /// Takes a connection in.
    pub fn insert(&mut self, connection: Connection) -> ConnId {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.slots[slot as usize];
            place.connection = Some(connection);
            let use_count = place.use_count;
            return ConnId { slot, use_count };
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            use_count: 0,
            connection: Some(connection),
        });
        ConnId { slot, use_count: 0 }
    }

    /// The connection of that name, unless it is gone.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.use_count != id.use_count {
            return None;
        }
        slot.connection.as_mut()
    }

    /// Lets a connection go.
    pub fn remove(&mut self, id: ConnId) -> Option<Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.use_count != id.use_count {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.use_count = slot.use_count.wrapping_add(1);
        self.freed_this_turn.push(id.slot);
        Some(connection)
    }

    /// Lets all connections go.
    pub fn drain(&mut self) -> impl Iterator<Item = Connection> {
        let slots = std::mem::take(self).slots.into_iter();
        slots.filter_map(|slot| slot.connection)
    }

    /// Call between turns: slots that were freed may be used again.
    pub fn recycle(&mut self) {
        self.free.append(&mut self.freed_this_turn);
    }

    /// Connections in it.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.freed_this_turn.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
