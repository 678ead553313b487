//! A registry in memory.

use std::sync::{Arc, Mutex};

use super::{Context, Planned, Refusal, carry_out};
use crate::{
    app::AppName,
    explanation::AtDevice,
    id::PushId,
    rows::{Key, MemoryRows, Range, Row, Scope, Table},
    store::{Command, Reader, Report, Unavailable},
};

/// Rows, a clock, and ids that ascend.
pub struct World {
    rows: Rows,
    pub now_ms: u64,
    last_id: u128,
}

impl Default for World {
    fn default() -> World {
        World {
            rows: Rows::default(),
            now_ms: 1_000_000,
            last_id: 0,
        }
    }
}

#[derive(Default)]
struct Rows(Mutex<MemoryRows>);

impl World {
    /// Plans and writes.
    pub fn run<T>(
        &mut self,
        plan: impl Fn(&Context<'_>) -> Result<Planned<T>, Refusal>,
    ) -> Result<T, Refusal> {
        self.last_id += 1;
        let submit = |command| match command {
            Command::Change(change) => Ok(self.rows.with(|rows| rows.change(&change))),
            other => unreachable!("a plan makes changes: {other:?}"),
        };
        carry_out(&self.context(), submit, plan)
    }

    /// Reads.
    pub fn read<T>(&self, read: impl FnOnce(&Context<'_>) -> Result<T, Unavailable>) -> T {
        read(&self.context()).expect("memory can be read")
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

impl Rows {
    fn with<T>(&self, act: impl FnOnce(&mut MemoryRows) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Reader for Rows {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let rows = |rows: &mut MemoryRows| {
            let row = |key| rows.row(scope, key, now_ms);
            keys.iter().map(row).collect()
        };
        Ok(self.with(rows))
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        Ok(self.with(|rows| rows.rows(range, now_ms)))
    }

    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable> {
        Ok(self.with(|rows| rows.count(scope, table)))
    }

    fn device_numbers(
        &self,
        _: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        Ok(devices.iter().map(|_| None).collect())
    }

    fn at_device(&self, _: &AppName, _: PushId, _: &str) -> Result<AtDevice, Unavailable> {
        Ok(AtDevice::default())
    }

    fn report(&self, _: &AppName, _: PushId, _: u64) -> Result<Option<Report>, Unavailable> {
        Ok(None)
    }
}
