//! A registry in memory.

use std::sync::Mutex;

use super::{Context, Planned, Refusal, carry_out};
use crate::{
    event::Draft,
    rows::MemoryRows,
    store::{Command, Unavailable},
};

/// Rows, a clock, and ids that ascend.
pub struct World {
    rows: Mutex<MemoryRows>,
    pub now_ms: u64,
    last_id: u128,
}

impl Default for World {
    fn default() -> World {
        World {
            rows: Mutex::default(),
            now_ms: 1_000_000,
            last_id: 0,
        }
    }
}

impl World {
    /// Plans and writes.
    pub fn run<T>(
        &mut self,
        plan: impl Fn(&Context<'_>) -> Result<Planned<T>, Refusal>,
    ) -> Result<T, Refusal> {
        self.last_id += 1;
        let submit = |command| match command {
            Command::Change(change) => Ok(self.rows.lock().unwrap().change(&change)),
            other => unreachable!("a plan makes changes: {other:?}"),
        };
        carry_out(&self.context(), submit, plan)
    }

    /// Reads what may be refused.
    pub fn ask<T>(
        &self,
        ask: impl FnOnce(&Context<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        ask(&self.context())
    }

    /// Reads.
    pub fn read<T>(&self, read: impl FnOnce(&Context<'_>) -> Result<T, Unavailable>) -> T {
        read(&self.context()).expect("memory can be read")
    }

    /// What the changes since the last call told.
    pub fn take_told(&mut self) -> Vec<Draft> {
        self.rows.lock().unwrap().take_told()
    }

    fn context(&self) -> Context<'_> {
        Context {
            reader: &self.rows,
            now_ms: self.now_ms,
            unique: u128::from(self.now_ms) << 80 | self.last_id,
            actor: "test",
        }
    }
}
