//! The rules as the servers run them: one script.

use std::sync::LazyLock;

static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    [
        include_str!("lua/state.lua"),
        include_str!("lua/devices.lua"),
        include_str!("lua/events.lua"),
        include_str!("lua/filters.lua"),
        include_str!("lua/cursors.lua"),
        include_str!("lua/inboxes.lua"),
        include_str!("lua/sessions.lua"),
        include_str!("lua/messages.lua"),
        include_str!("lua/sweep.lua"),
        include_str!("lua/apps.lua"),
        include_str!("lua/reads.lua"),
        include_str!("lua/rows.lua"),
        include_str!("lua/erase.lua"),
        include_str!("lua/main.lua"),
    ]
    .concat()
});

/// The script: rules, queries, and what tells them apart.
pub fn script() -> &'static str {
    &SCRIPT
}
