//! The `options` of a push: how and when its devices get it.
//!
//! ```json
//! {"ttl": 86400, "priority": "high", "collapse_key": "score", "pace": {"over": 600},
//!  "quiet_hours": {"from": "22:00", "to": "07:00"}, "frequency_cap": {"key": "offers", "count": 2, "per": 86400},
//!  "portion": {"percent": 5, "hold": 900, "auto_halt": {"error_rate": 0.02, "after": 500}}}
//! ```

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::{
    audience::Audience,
    clock::{TimeOfDay, WallTime},
    fields::{Fields, invalid},
    frequency::FrequencyCap,
    json::Node,
    lanes::Priority,
    quiet::{QuietHours, QuietPolicy},
    request::{Invalid, Limits},
};

mod extras;
mod timing;

/// Time to live of a push that does not say: 7 days, in seconds.
pub const DEFAULT_TTL_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Longest time to live: 28 days, in seconds.
pub const MAX_TTL_SECONDS: u64 = 28 * 24 * 60 * 60;
/// Bytes of a collapse key or of the key of a frequency cap.
pub const MAX_KEY_BYTES: usize = 64;
/// Devices a second of the fastest pace.
pub const MAX_PER_SECOND: u64 = 1_000_000;
/// Shortest time to live of a push with a local time, in seconds: the day may have 25 hours.
pub const MIN_LOCAL_TTL_SECONDS: u64 = 25 * 60 * 60;
/// Labels of a push.
pub const MAX_LABELS: usize = 8;
/// Bytes of a callback URL.
pub const MAX_URL_BYTES: usize = 2048;
/// Bytes of an external id.
pub const MAX_EXTERNAL_ID_BYTES: usize = 128;

/// The options that this version carries out. A push that asks for another is refused: an option that is taken and not kept would
/// be worse than none.
const CARRIED_OUT: &[&str] = &[
    "ttl",
    "not_before",
    "priority",
    "collapse_key",
    "pace",
    "local_time",
    "quiet_hours",
    "frequency_cap",
    "portion",
    "receipts",
    "labels",
    "callback_url",
    "external_id",
];

const NAMES: &[&str] = &[
    "ttl",
    "collapse_key",
    "priority",
    "pace",
    "not_before",
    "local_time",
    "quiet_hours",
    "frequency_cap",
    "portion",
    "receipts",
    "labels",
    "callback_url",
    "external_id",
];

/// How and when the devices of a push get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seconds from acceptance, at most 28 days; 0: now or never, only to devices that are connected.
    pub ttl_seconds: u64,
    /// A push replaces an undelivered one of the same key at each of its devices, 1..=64 bytes.
    pub collapse_key: Option<String>,
    /// What goes before what.
    pub priority: Priority,
    /// Devices get it one after another.
    pub pace: Option<Pace>,
    /// Unix milliseconds before which it is not accepted: a schedule of one run. The time to live counts from the run.
    pub not_before_ms: Option<u64>,
    /// Each device gets it when its own clock shows this.
    pub local_time: Option<LocalTime>,
    /// When devices are left alone.
    pub quiet_hours: Option<QuietHours>,
    /// How often a device gets pushes of a kind.
    pub frequency_cap: Option<FrequencyCap>,
    /// A part of the devices first.
    pub portion: Option<Portion>,
    /// Which receipts of the app on the device are wanted.
    pub receipts: Receipts,
    /// For the caller's own sorting: at most 8, names of 1..=32 of `a-z 0-9 _ . -`, values of at most 64 bytes.
    pub labels: BTreeMap<String, String>,
    /// Where the push's end is reported, at most 2048 bytes.
    pub callback_url: Option<String>,
    /// The caller's own name of it, 1..=128 bytes.
    pub external_id: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ttl_seconds: DEFAULT_TTL_SECONDS,
            collapse_key: None,
            priority: Priority::default(),
            pace: None,
            not_before_ms: None,
            local_time: None,
            quiet_hours: None,
            frequency_cap: None,
            portion: None,
            receipts: Receipts::default(),
            labels: BTreeMap::new(),
            callback_url: None,
            external_id: None,
        }
    }
}

/// How fast a push goes to its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many devices a second, 1..=1,000,000.
    PerSecond(u64),
    /// All devices within so many seconds, evenly.
    Over(u64),
}

/// A time on the device's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The time of day.
    pub at: TimeOfDay,
    /// Only on this date; otherwise on the day of acceptance, by the device's calendar.
    pub date: Option<Date>,
    /// For devices whose clock has shown it already.
    pub if_past: IfPast,
    /// With [`IfPast::Now`]: not for devices whose clock has shown this too. The next run of a schedule is for them.
    pub superseded: Option<WallTime>,
}

/// For devices whose clock has already shown the local time. During its very minute it is not yet past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPast {
    /// When the clock shows that time next. The default without a date.
    NextDay,
    /// At once. The default with a date.
    Now,
    /// Never.
    Skip,
}

/// A part of the devices that gets the push first, drawn anew for each push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Hundredths of a percent, 1..=10,000.
    pub hundredths: u32,
    /// Seconds after which the others follow; without it they never do.
    pub hold_seconds: Option<u64>,
    /// When to stop by itself.
    pub auto_halt: Option<AutoHalt>,
}

/// When a push stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoHalt {
    /// Share of failures above which it stops, in parts of 10,000, 1..=10,000.
    pub error_rate: u32,
    /// Outcomes before which nothing is concluded, 1..=1,000,000.
    pub after: u64,
}

impl AutoHalt {
    /// Whether a push with so many outcomes, of which so many are failures, stops.
    pub fn halts(&self, outcomes: u64, failures: u64) -> bool {
        outcomes >= self.after
            && u128::from(failures) * 10_000 > u128::from(outcomes) * u128::from(self.error_rate)
    }
}

/// Receipts of the app on the device. That it was delivered is known from MQTT and always counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// It was shown.
    pub displayed: bool,
    /// It was opened.
    pub clicked: bool,
    /// It was swiped away.
    pub dismissed: bool,
}

impl Default for Receipts {
    /// All.
    fn default() -> Receipts {
        Receipts {
            displayed: true,
            clicked: true,
            dismissed: true,
        }
    }
}

impl Options {
    /// Reads and checks the `options` object of a push.
    pub(crate) fn parse(value: &Node, limits: &Limits) -> Result<Options, Invalid> {
        let mut fields = Fields::of("/options", value)?;
        let options = Options {
            ttl_seconds: fields
                .whole("ttl", "a number of seconds", 0..=MAX_TTL_SECONDS)?
                .unwrap_or(DEFAULT_TTL_SECONDS),
            collapse_key: extras::bounded(&mut fields, "collapse_key", MAX_KEY_BYTES)?,
            priority: fields
                .word("priority", &Priority::ALL.map(|p| (p.name(), p)))?
                .unwrap_or_default(),
            pace: timing::pace(&mut fields)?,
            not_before_ms: fields.time("not_before")?,
            local_time: timing::local_time(&mut fields)?,
            quiet_hours: timing::quiet_hours(&mut fields)?,
            frequency_cap: extras::frequency_cap(&mut fields)?,
            portion: extras::portion(&mut fields)?,
            receipts: extras::receipts(&mut fields)?,
            labels: extras::labels(&mut fields)?,
            callback_url: extras::callback_url(&mut fields, limits)?,
            external_id: extras::bounded(&mut fields, "external_id", MAX_EXTERNAL_ID_BYTES)?,
        };
        fields.no_others(NAMES)?;
        options.check_contradictions()?;
        Ok(options)
    }

    /// Refuses an option that this version knows and does not carry out for this audience. `value` is what the options were read from.
    pub(crate) fn check_carried_out(
        &self,
        value: &Node,
        audience: &Audience,
    ) -> Result<(), Invalid> {
        let Node::Object(fields) = value else {
            return Ok(());
        };
        let is_named = matches!(audience, Audience::Devices(_) | Audience::Users(_));
        self.check_instant(is_named)?;
        let is_carried_out = |name: &&String| CARRIED_OUT.contains(&name.as_str());
        if let Some(name) = fields.keys().find(|name| !is_carried_out(name)) {
            return Err(invalid(
                &crate::json::pointer_to("/options", name),
                format!("\"{name}\" is not carried out by this version: leave it out"),
            ));
        }
        Ok(())
    }

    /// Refuses what looks at more than who is connected, of a push that is now or never.
    fn check_instant(&self, is_named: bool) -> Result<(), Invalid> {
        let looks = [
            ("collapse_key", self.collapse_key.is_some() && !is_named),
            ("quiet_hours", self.quiet_hours.is_some()),
            ("frequency_cap", self.frequency_cap.is_some()),
            (
                "portion",
                self.portion
                    .is_some_and(|portion| portion.auto_halt.is_some()),
            ),
        ];
        match looks.iter().find(|(_, looks)| *looks) {
            Some((name, _)) if self.ttl_seconds == 0 => Err(invalid(
                &format!("/options/{name}"),
                format!(
                    "\"ttl\": 0 is now or never, without a look at what devices got before: give a ttl or leave \"{name}\" out"
                ),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_contradictions(&self) -> Result<(), Invalid> {
        let ttl = self.ttl_seconds;
        let delays = self
            .quiet_hours
            .filter(|quiet| quiet.policy == QuietPolicy::Delay);
        let waits = [
            ("pace", self.pace.is_some()),
            ("local_time", self.local_time.is_some()),
            ("quiet_hours", delays.is_some()),
            (
                "portion",
                self.portion.is_some_and(|p| p.hold_seconds.is_some()),
            ),
        ];
        if let (0, Some((name, _))) = (ttl, waits.iter().find(|(_, waits)| *waits)) {
            return Err(invalid(
                &format!("/options/{name}"),
                format!(
                    "\"ttl\": 0 is now or never, and \"{name}\" makes devices wait: give a longer ttl or leave \"{name}\" out"
                ),
            ));
        }
        if let (Some(_), Some(_)) = (self.local_time, self.pace) {
            return Err(invalid(
                "/options/pace",
                "\"pace\" and \"local_time\" both say when a device gets the push: leave one out",
            ));
        }
        let over = match self.pace {
            Some(Pace::Over(seconds)) => seconds,
            _ => 0,
        };
        let hold = self.portion.and_then(|p| p.hold_seconds).unwrap_or(0);
        if over + hold > ttl {
            let name = if over > 0 { "pace" } else { "portion" };
            return Err(invalid(
                &format!("/options/{name}"),
                format!(
                    "the last devices would have their turn after {} seconds, when the ttl of {ttl} is over: raise \"ttl\" or go faster",
                    over + hold
                ),
            ));
        }
        if self.local_time.is_some() && ttl < MIN_LOCAL_TTL_SECONDS {
            return Err(invalid(
                "/options/ttl",
                format!(
                    "with \"local_time\" some devices wait for a whole day: a ttl of {ttl} is over before, {MIN_LOCAL_TTL_SECONDS} (25 hours) is the least"
                ),
            ));
        }
        if let Some(quiet) = delays {
            let seconds = u64::from(quiet.minutes()) * 60;
            if seconds > ttl {
                return Err(invalid(
                    "/options/quiet_hours",
                    format!(
                        "a device may have to wait for {seconds} seconds, longer than the ttl of {ttl}: raise \"ttl\" or use \"policy\": \"drop\""
                    ),
                ));
            }
        }
        match (self.local_time, self.quiet_hours) {
            (Some(local), Some(quiet)) if quiet.contains(local.at) => Err(invalid(
                "/options/local_time",
                format!(
                    "{} is in the quiet hours from {} to {}: choose another time or leave \"quiet_hours\" out",
                    local.at, quiet.from, quiet.to
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
