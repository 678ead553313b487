//! The API key of `serve --dev`.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use campanile_api::Store;
use campanile_push::{app::AppName, key::ApiKey};

use crate::auth::random;

/// Environment variable with the key to use.
pub const KEY_VARIABLE: &str = "CAMPANILE_DEV_KEY";

/// The key that is given, or the one that the data directory keeps, or a new one, which it keeps from then on.
pub fn key(data_dir: &Path, given: Option<String>) -> anyhow::Result<ApiKey> {
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        return ApiKey::parse(&text).context(KEY_VARIABLE);
    }
    let path = data_dir.join("dev-key");
    match fs::read_to_string(&path) {
        Ok(text) => return ApiKey::parse(text.trim()).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let key = ApiKey::from_random(random());
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{}", key.reveal()));
    written.with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(key)
}

/// Makes the app with this key, or gives it the key; it may do everything.
pub fn register(store: &dyn Store, app: &str, key: &ApiKey) -> anyhow::Result<()> {
    crate::admin::register(store, &AppName::new(app)?, &key.hash())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_privately() {
        let dir = tempfile::tempdir().unwrap();
        let first = key(dir.path(), None).unwrap();
        assert_eq!(key(dir.path(), Some(String::new())).unwrap(), first);
        assert_eq!(
            fs::metadata(dir.path().join("dev-key"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert_eq!(
            key(dir.path(), Some("cmp_mine".to_owned()))
                .unwrap()
                .reveal(),
            "cmp_mine"
        );
        assert_eq!(key(dir.path(), None).unwrap(), first);
    }

    #[test]
    fn a_key_that_cannot_be_one_names_its_source() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            key(dir.path(), Some("a b".to_owned()))
                .unwrap_err()
                .to_string()
                .contains(KEY_VARIABLE)
        );
        fs::write(dir.path().join("dev-key"), "a b").unwrap();
        assert!(
            key(dir.path(), None)
                .unwrap_err()
                .to_string()
                .contains("dev-key")
        );
    }
}
