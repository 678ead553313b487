//! What the operating system says about this process.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Figures of the process. What cannot be read is `None`: `/proc` is Linux's.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct ProcessFigures {
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub max_files: Option<u64>,
    pub cpu_seconds: Option<f64>,
}

impl ProcessFigures {
    /// Reads them.
    pub fn read() -> ProcessFigures {
        ProcessFigures {
            resident_bytes: resident_bytes(),
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count() as u64),
            max_files: getrlimit(Resource::Nofile).current,
            cpu_seconds: cpu_seconds(),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string(Path::new("/proc/self/stat")).ok()?;
    // The second field is a name in parentheses and may hold spaces; user and system time are the 14th and 15th.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Lets the process open as many files as it may at most. Returns that number.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
