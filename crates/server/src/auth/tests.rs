use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use campanile_broker::ids::AppId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::*;

struct Setup {
    dir: tempfile::TempDir,
    settings: config::Clients,
}

/// Users `ann` (password `a`, with SCRAM) and `bob` (password `b`); everybody may do everything on their own topics.
fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let passwords = format!(
        "ann:{}\nann:{}\nbob:{}\n",
        password_file::hash(b"a"),
        Verifier::new(b"a", b"0123456789abcdef", 4096),
        password_file::hash(b"b")
    );
    let settings = config::Clients {
        password_file: write("passwords", passwords),
        acl_file: write("acl", "pattern readwrite u/%u/#\n".to_owned()),
        ..config::Clients::default()
    };
    Setup { dir, settings }
}

fn request(username: Option<&str>, password: Option<&str>) -> AuthRequest {
    AuthRequest {
        app: AppId::new("default"),
        listener: "mqtt".into(),
        peer: "127.0.0.1:5".parse().unwrap(),
        client_id: "c".into(),
        username: username.map(Into::into),
        password: password.map(|password| password.as_bytes().into()),
        method: None,
        data: None,
        state: None,
        identity: None,
    }
}

fn scram_request(data: &str, state: Option<Arc<[u8]>>) -> AuthRequest {
    AuthRequest {
        method: Some(SCRAM_METHOD.into()),
        data: Some(data.as_bytes().into()),
        state,
        ..request(None, None)
    }
}

#[track_caller]
fn check_allowed(verdict: Verdict, username: Option<&str>) {
    match verdict {
        Verdict::Allow { identity, .. } => assert_eq!(identity.username.as_deref(), username),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_denied(verdict: Verdict, reason: Reason) {
    assert!(
        matches!(verdict, Verdict::Deny(found) if found == reason),
        "{verdict:?}"
    );
}

#[test]
fn a_right_password_is_judged_slowly_once_and_quickly_afterwards() {
    let access = ClientAccess::open(&setup().settings, &[]).unwrap();
    let request = request(Some("ann"), Some("a"));
    assert!(matches!(access.authenticate(&request), Verdict::Later));
    check_allowed(access.authenticate_slowly(&request), Some("ann"));
    check_allowed(access.authenticate(&request), Some("ann"));
}

#[test]
fn wrong_passwords_and_unknown_users_look_the_same() {
    let access = ClientAccess::open(&setup().settings, &[]).unwrap();
    check_allowed(
        access.authenticate_slowly(&request(Some("ann"), Some("a"))),
        Some("ann"),
    );
    for (user, password) in [
        ("ann", Some("b")),
        ("ann", Some("")),
        ("ann", None),
        ("cid", Some("a")),
        ("", Some("a")),
    ] {
        let request = request(Some(user), password);
        for _ in 0..2 {
            assert!(matches!(access.authenticate(&request), Verdict::Later));
            check_denied(
                access.authenticate_slowly(&request),
                Reason::BadUserNameOrPassword,
            );
        }
    }
    check_denied(
        access.authenticate(&request(None, Some("a"))),
        Reason::BadUserNameOrPassword,
    );
}

#[test]
fn anonymous_clients_come_in_only_where_they_are_allowed() {
    let Setup {
        mut settings,
        dir: _dir,
    } = setup();
    check_denied(
        ClientAccess::open(&settings, &[])
            .unwrap()
            .authenticate(&request(None, None)),
        Reason::NotAuthorized,
    );
    settings.allow_anonymous = true;
    let access = ClientAccess::open(&settings, &[]).unwrap();
    check_allowed(access.authenticate(&request(None, None)), None);
    check_denied(
        access.authenticate_slowly(&request(Some("ann"), Some("x"))),
        Reason::BadUserNameOrPassword,
    );
}

#[test]
fn without_a_password_file_a_name_proves_nothing() {
    let open = ClientAccess::open(
        &config::Clients {
            allow_anonymous: true,
            ..config::Clients::default()
        },
        &[],
    )
    .unwrap();
    check_allowed(open.authenticate(&request(Some("ann"), Some("a"))), None);
    check_allowed(open.authenticate(&request(None, Some("a"))), None);
    let closed = ClientAccess::open(&config::Clients::default(), &[]).unwrap();
    check_denied(
        closed.authenticate(&request(Some("ann"), Some("a"))),
        Reason::NotAuthorized,
    );
    check_denied(
        closed.authenticate(&scram_request("n,,n=ann,r=x", None)),
        Reason::BadAuthenticationMethod,
    );
}

#[test]
fn topics_are_free_without_an_acl_file_and_judged_with_one() {
    let Setup {
        mut settings,
        dir: _dir,
    } = setup();
    let ann = Identity {
        username: Some("ann".into()),
        device: None,
    };
    let access = ClientAccess::open(&settings, &[]).unwrap();
    assert!(access.may_publish(&ann, "c", "u/ann/x") && access.may_subscribe(&ann, "c", "u/ann/#"));
    assert!(!access.may_publish(&ann, "c", "u/bob/x") && !access.may_subscribe(&ann, "c", "#"));
    settings.acl_file = None;
    let access = ClientAccess::open(&settings, &[]).unwrap();
    assert!(
        access.may_publish(&ann, "c", "u/bob/x")
            && access.may_subscribe(&Identity::default(), "c", "#")
    );
}

#[test]
fn reload_takes_new_files_and_keeps_the_old_ones_if_anything_is_wrong() {
    let Setup {
        settings,
        dir: _dir,
    } = setup();
    let access = ClientAccess::open(&settings, &[]).unwrap();
    check_allowed(
        access.authenticate_slowly(&request(Some("ann"), Some("a"))),
        Some("ann"),
    );

    let path = settings.password_file.as_deref().unwrap();
    fs::write(path, "ann\n").unwrap();
    fs::write(settings.acl_file.as_deref().unwrap(), "nonsense\n").unwrap();
    let problems = access.reload().unwrap_err();
    assert_eq!(
        problems
            .0
            .iter()
            .map(|problem| problem.line)
            .collect::<Vec<_>>(),
        [Some(1), Some(1)]
    );
    assert!(
        problems
            .to_string()
            .starts_with(&format!("{}:1: no \":\"", path.display())),
        "{problems}"
    );
    check_allowed(
        access.authenticate(&request(Some("ann"), Some("a"))),
        Some("ann"),
    );

    fs::write(path, format!("ann:{}\n", password_file::hash(b"new"))).unwrap();
    fs::write(settings.acl_file.as_deref().unwrap(), "pattern read #\n").unwrap();
    access.reload().unwrap();
    assert!(matches!(
        access.authenticate(&request(Some("ann"), Some("a"))),
        Verdict::Later
    ));
    check_denied(
        access.authenticate_slowly(&request(Some("ann"), Some("a"))),
        Reason::BadUserNameOrPassword,
    );
    check_allowed(
        access.authenticate_slowly(&request(Some("ann"), Some("new"))),
        Some("ann"),
    );
    assert!(access.may_subscribe(&Identity::default(), "c", "#"));
}

#[test]
fn missing_files_are_reported_together() {
    let settings = config::Clients {
        password_file: Some(Path::new("/nowhere/passwords").into()),
        acl_file: Some(Path::new("/nowhere/acl").into()),
        ..config::Clients::default()
    };
    let problems = ClientAccess::open(&settings, &[]).err().unwrap();
    assert_eq!(problems.0.len(), 2);
    assert!(
        problems
            .to_string()
            .starts_with("/nowhere/passwords: cannot be read: "),
        "{problems}"
    );
}

/// What a client answers to a challenge.
fn answer(first_bare: &str, challenge: &[u8], password: &str) -> String {
    let challenge = std::str::from_utf8(challenge).unwrap();
    let attribute = |name: &str| {
        challenge
            .split(',')
            .find_map(|part| part.strip_prefix(name))
            .unwrap()
    };
    let salt = BASE64_STANDARD.decode(attribute("s=")).unwrap();
    let salted: [u8; 32] = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(
        password.as_bytes(),
        &salt,
        attribute("i=").parse().unwrap(),
    );
    let mac = |key: &[u8], text: &str| -> [u8; 32] {
        Hmac::<Sha256>::new_from_slice(key)
            .unwrap()
            .chain_update(text)
            .finalize()
            .into_bytes()
            .into()
    };
    let client_key = mac(&salted, "Client Key");
    let without_proof = format!("c=biws,r={}", attribute("r="));
    let stored_key: [u8; 32] = Sha256::digest(client_key).into();
    let signature = mac(
        &stored_key,
        &format!("{first_bare},{challenge},{without_proof}"),
    );
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature)
        .map(|(key, signature)| key ^ signature)
        .collect();
    format!("{without_proof},p={}", BASE64_STANDARD.encode(proof))
}

fn scram(access: &ClientAccess, user: &str, password: &str, identity: Option<Identity>) -> Verdict {
    let bare = format!("n={user},r=abcdef");
    let Verdict::Challenge { data, state } =
        access.authenticate(&scram_request(&format!("n,,{bare}"), None))
    else {
        panic!("a challenge")
    };
    let last = scram_request(&answer(&bare, &data, password), Some(state));
    access.authenticate(&AuthRequest { identity, ..last })
}

#[test]
fn scram_lets_in_who_knows_the_password() {
    let access = ClientAccess::open(&setup().settings, &[]).unwrap();
    let verdict = scram(&access, "ann", "a", None);
    assert!(
        matches!(&verdict, Verdict::Allow { data: Some(data), .. } if data.starts_with(b"v=")),
        "{verdict:?}"
    );
    check_allowed(verdict, Some("ann"));
    check_denied(scram(&access, "ann", "b", None), Reason::NotAuthorized);
    check_denied(scram(&access, "bob", "b", None), Reason::NotAuthorized);
}

#[test]
fn scram_challenges_unknown_users_like_known_ones() {
    let access = ClientAccess::open(&setup().settings, &[]).unwrap();
    let challenge = |user: &str| {
        let Verdict::Challenge { data, .. } =
            access.authenticate(&scram_request(&format!("n,,n={user},r=abcdef"), None))
        else {
            panic!("a challenge")
        };
        let text = String::from_utf8(data.to_vec()).unwrap();
        text.split_once(",s=").unwrap().1.to_owned()
    };
    assert_eq!(challenge("cid"), challenge("cid"));
    assert_ne!(challenge("cid"), challenge("dan"));
    assert_eq!(challenge("cid").len(), challenge("ann").len());
    check_denied(scram(&access, "cid", "a", None), Reason::NotAuthorized);
}

#[test]
fn re_authentication_must_keep_the_user() {
    let access = ClientAccess::open(&setup().settings, &[]).unwrap();
    check_allowed(
        scram(
            &access,
            "ann",
            "a",
            Some(Identity {
                device: None,
                username: Some("ann".into()),
            }),
        ),
        Some("ann"),
    );
    check_denied(
        scram(
            &access,
            "ann",
            "a",
            Some(Identity {
                device: None,
                username: Some("bob".into()),
            }),
        ),
        Reason::NotAuthorized,
    );
    check_denied(
        scram(&access, "ann", "a", Some(Identity::default())),
        Reason::NotAuthorized,
    );
}

#[test]
fn other_methods_are_refused() {
    let Setup {
        mut settings,
        dir: _dir,
    } = setup();
    let other = AuthRequest {
        method: Some("SCRAM-SHA-1".into()),
        ..request(None, None)
    };
    check_denied(
        ClientAccess::open(&settings, &[])
            .unwrap()
            .authenticate(&other),
        Reason::BadAuthenticationMethod,
    );
    settings.scram = false;
    check_denied(
        ClientAccess::open(&settings, &[])
            .unwrap()
            .authenticate(&scram_request("n,,n=ann,r=x", None)),
        Reason::BadAuthenticationMethod,
    );
}
