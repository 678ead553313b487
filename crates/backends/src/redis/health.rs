//! Whether a server keeps what it is given.

use std::collections::HashMap;

use super::config::{Durability, RedisConfig};

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its address.
    pub address: String,
    /// Whether it takes writes: `role` of INFO is `master`.
    pub is_primary: bool,
    /// `maxmemory-policy`.
    pub eviction: String,
    /// The append-only file is on.
    pub appends: bool,
    /// `save`; `None` if it may not be asked.
    pub save: Option<String>,
    /// `run_id`, another one after each start; its address if it does not say.
    pub run: String,
    /// Replicas that follow it, and have said so within a second or two.
    pub replicas: u32,
}

/// Why a server is not good enough, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whole sentence for the operator.
    pub text: String,
    /// The operator has said that it is meant so.
    pub is_allowed: bool,
}

impl Facts {
    /// Reads the answers to INFO and, where it is allowed, to CONFIG GET.
    pub fn of(address: &str, info: &str, config: Option<&HashMap<String, String>>) -> Facts {
        let fields: HashMap<&str, &str> = info
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or_default();
        let run = fields.get("run_id").copied().unwrap_or(address);
        Facts {
            address: address.to_owned(),
            is_primary: field("role") == "master",
            eviction: field("maxmemory_policy").to_owned(),
            appends: field("aof_enabled") == "1",
            save: config.and_then(|config| config.get("save").cloned()),
            run: run.to_owned(),
            replicas: replicas(info),
        }
    }

    /// What is wrong with it.
    pub fn faults(&self, config: &RedisConfig) -> Vec<Fault> {
        let address = &self.address;
        let mut faults = Vec::new();
        if !self.eviction.is_empty() && self.eviction != "noeviction" {
            faults.push(Fault {
                text: format!(
                    "redis {address}: maxmemory-policy is {}, so that it drops messages when memory is short; \
                     set it to noeviction (CONFIG SET maxmemory-policy noeviction), or set allow_eviction",
                    self.eviction
                ),
                is_allowed: config.allow_eviction,
            });
        }
        if !self.appends && self.save.as_deref() == Some("") {
            faults.push(Fault {
                text: format!(
                    "redis {address}: appendonly is no and save is empty, so that it keeps nothing on disk; \
                     set appendonly to yes (CONFIG SET appendonly yes), or set allow_no_persistence"
                ),
                is_allowed: config.allow_no_persistence,
            });
        }
        faults
    }

    /// What could not be found out or is unwise.
    pub fn doubts(&self, config: &RedisConfig) -> Vec<String> {
        let address = &self.address;
        let mut doubts = Vec::new();
        if self.eviction.is_empty() {
            doubts.push(format!(
                "redis {address}: INFO does not tell maxmemory_policy: make sure that it is noeviction"
            ));
        }
        if !self.appends && self.save.is_none() {
            doubts.push(format!(
                "redis {address}: appendonly is no, and CONFIG GET save is not allowed: make sure that it keeps snapshots"
            ));
        }
        if config.durability == Durability::Replicated && config.min_replicas == 0 {
            doubts.push(format!(
                "redis {address}: durability is replicated with min_replicas 0: nothing is waited for"
            ));
        }
        doubts
    }
}

/// How many replicas follow a server by its INFO, without those that have been silent for a while.
pub fn replicas(info: &str) -> u32 {
    let follows = |line: &&str| {
        line.starts_with("slave")
            && line.contains("state=online")
            && ["lag=0", "lag=1"]
                .iter()
                .any(|lag| line.trim_end().ends_with(lag))
    };
    info.lines().filter(follows).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(policy: &str, aof: &str, save: Option<&str>) -> Facts {
        let info = format!(
            "# Server\r\nredis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n"
        );
        let config = save.map(|save| HashMap::from([("save".to_owned(), save.to_owned())]));
        Facts::of("r:1", &info, config.as_ref())
    }

    #[test]
    fn a_server_that_keeps_everything_has_no_faults() {
        let config = RedisConfig::default();
        for facts in [
            facts("noeviction", "1", Some("")),
            facts("noeviction", "0", Some("3600 1")),
            facts("noeviction", "0", None),
        ] {
            assert_eq!(facts.faults(&config), []);
        }
    }

    #[test]
    fn faults_say_which_server_which_setting_and_the_way_out() {
        let config = RedisConfig::default();
        let faults = facts("allkeys-lru", "0", Some("")).faults(&config);
        assert_eq!(faults.len(), 2);
        assert!(
            faults[0]
                .text
                .starts_with("redis r:1: maxmemory-policy is allkeys-lru")
        );
        assert!(faults[1].text.ends_with("or set allow_no_persistence"));
        assert!(faults.iter().all(|fault| !fault.is_allowed));
    }

    #[test]
    fn replicas_that_are_silent_or_not_there_yet_do_not_count() {
        let info = "role:master\r\nconnected_slaves:4\r\n\
            slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=1\r\n\
            slave1:ip=10.0.0.3,port=6379,state=online,offset=14,lag=12\r\n\
            slave2:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0\r\n\
            slave3:ip=10.0.0.5,port=6379,state=online,offset=14,lag=0\r\n";
        assert_eq!(replicas(info), 2);
    }
}
