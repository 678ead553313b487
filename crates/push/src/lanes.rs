//! How urgent a push is. What that means for the messages that wait for a device is the broker's rule: high before normal before low.

/// Urgency of a push. A one-time password is high, a campaign is normal or low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Before all that waits.
    High,
    /// What a push has that does not say.
    #[default]
    Normal,
    /// When nothing else waits, but for a share that keeps it moving.
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
