//! What an API key may do.

use std::fmt;

/// One thing that a key may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Permission {
    /// Send, pause, cancel and recall pushes; schedules.
    PushSend = 1,
    /// Register, change and remove devices, users, tags, segments and uploads.
    DeviceWrite = 2,
    /// Read everything but keys and the audit log.
    Read = 4,
    /// Everything of the app, keys and the audit log too.
    Admin = 8,
    /// All apps and the nodes: `/v1/admin`. Nothing within an app. Given on a node's machine only.
    Operator = 16,
}

impl Permission {
    /// All, in the order in which they are listed.
    pub const ALL: [Permission; 5] = [
        Permission::PushSend,
        Permission::DeviceWrite,
        Permission::Read,
        Permission::Admin,
        Permission::Operator,
    ];
    /// What an app may give its own keys.
    pub const OF_APPS: [Permission; 4] = [
        Permission::PushSend,
        Permission::DeviceWrite,
        Permission::Read,
        Permission::Admin,
    ];

    /// As callers write it.
    pub fn text(self) -> &'static str {
        match self {
            Permission::PushSend => "push:send",
            Permission::DeviceWrite => "device:write",
            Permission::Read => "read",
            Permission::Admin => "admin",
            Permission::Operator => "operator",
        }
    }

    /// The permission of a text.
    pub fn parse(text: &str) -> Option<Permission> {
        Permission::ALL
            .into_iter()
            .find(|permission| permission.text() == text)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What a key may do, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// Everything of an app.
    pub const ADMIN: Permissions = Permissions(Permission::Admin as u32);

    /// The permissions of a record.
    pub fn from_bits(bits: u32) -> Permissions {
        Permissions(bits)
    }

    /// For a record.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// With one more.
    pub fn with(self, permission: Permission) -> Permissions {
        Permissions(self.0 | permission as u32)
    }

    /// Whether this is allowed: [`Permission::Admin`] allows everything but [`Permission::Operator`].
    pub fn allow(self, permission: Permission) -> bool {
        let includes = match permission {
            Permission::Operator => 0,
            _ => Permission::Admin as u32,
        };
        self.0 & (permission as u32 | includes) != 0
    }

    /// Those given by name.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.0 & *permission as u32 != 0)
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Permissions {
        permissions
            .into_iter()
            .fold(Permissions::default(), Permissions::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_may_do_everything_and_the_others_what_they_say() {
        for permission in Permission::ALL {
            let is_of_apps = Permission::OF_APPS.contains(&permission);
            assert_eq!(Permissions::ADMIN.allow(permission), is_of_apps);
            assert_eq!(Permission::parse(permission.text()), Some(permission));
        }
        let sender: Permissions = [Permission::PushSend].into_iter().collect();
        assert!(sender.allow(Permission::PushSend));
        assert!(!sender.allow(Permission::Read) && !sender.allow(Permission::Admin));
        let operator: Permissions = [Permission::Operator].into_iter().collect();
        assert!(operator.allow(Permission::Operator) && !operator.allow(Permission::Read));
        assert_eq!(Permissions::from_bits(sender.bits()), sender);
        assert_eq!(Permission::parse("push"), None);
    }
}
