use std::sync::Mutex;

use campanile_broker::access::Access;
use campanile_push::{
    registry::{
        Context, Planned, Refusal, apps, carry_out,
        device_keys::NewDeviceKey,
        devices::{self as registered, get},
        permission::Permissions,
    },
    rows::MemoryRows,
    store::{Command, Outcome},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{
    super::{ClientAccess, config},
    *,
};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Devices of the app `shop`, and what judges them.
struct World {
    rows: Arc<Mutex<MemoryRows>>,
    access: ClientAccess,
    clock: Clock,
    token: DeviceToken,
}

/// `phone-1` has a token, and the app a key `k1`.
fn world() -> World {
    world_with(&config::Clients::default(), &[])
}

fn world_with(clients: &config::Clients, listeners: &[config::Listener]) -> World {
    let rows = Arc::<Mutex<MemoryRows>>::default();
    let access = ClientAccess::open(clients, listeners).unwrap();
    let clock = Clock::start();
    let token = DeviceToken::from_random([7; 32]);
    let world = World {
        rows,
        access,
        clock,
        token,
    };
    let hash = world.token.hash();
    let key = campanile_push::app::KeyHash::of("key");
    world.run(|context, app| {
        apps::create(context, app, Default::default(), &key, Permissions::ADMIN)
    });
    world.run(|context, app| tokens::issue(context, app, "phone-1", &hash, 0));
    world.add_key("k1");
    let reader: Arc<dyn Reader> = world.rows.clone();
    let apps = [AppId::new("shop")].into_iter();
    world
        .access
        .devices()
        .start(reader, world.clock.clone(), apps);
    world
}

impl World {
    fn run<T>(&self, plan: impl Fn(&Context<'_>, &AppName) -> Result<Planned<T>, Refusal>) -> T {
        let app = AppName::new("shop").unwrap();
        let context = Context {
            reader: &*self.rows,
            now_ms: self.clock.now().0,
            unique: 1,
            actor: "test",
        };
        let submit = |command| match command {
            Command::Change(change) => {
                let outcome: Outcome = self.rows.lock().unwrap().change(&change);
                Ok(outcome)
            }
            other => unreachable!("{other:?}"),
        };
        carry_out(&context, submit, |context| plan(context, &app)).unwrap()
    }

    fn add_key(&self, kid: &str) {
        let body = json!({"kid": kid, "algorithm": "HS256", "secret": SECRET}).to_string();
        let key = NewDeviceKey::parse(body.as_bytes()).unwrap();
        self.run(|context, app| device_keys::add(context, app, &key));
    }

    fn patch(&self, body: &str) {
        let patch = campanile_push::device::Patch::parse(body.as_bytes()).unwrap();
        self.run(|context, app| registered::put(context, app, "phone-1", &patch));
        self.run(|context, app| Ok(Planned::nothing(get(context, app, "phone-1")?)));
    }

    fn signed(&self, kid: Option<&str>, changes: Value) -> String {
        let mut claims =
            json!({"sub": "phone-1", "aud": "shop", "exp": self.clock.now().0 / 1000 + 60});
        let object = claims.as_object_mut().unwrap();
        object.extend(changes.as_object().unwrap().clone());
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(Algorithm::HS256)
        };
        let secret = EncodingKey::from_base64_secret(SECRET).unwrap();
        encode(&header, &claims, &secret).unwrap()
    }

    fn judge(&self, username: Option<&str>, password: &str) -> Verdict {
        let request = AuthRequest {
            app: AppId::new("shop"),
            listener: "mqtt".into(),
            peer: "127.0.0.1:5".parse().unwrap(),
            client_id: "phone-1".into(),
            username: username.map(Into::into),
            password: Some(password.as_bytes().into()),
            method: None,
            data: None,
            state: None,
            identity: None,
        };
        assert!(matches!(
            self.access.authenticate(&request),
            Verdict::Later | Verdict::Deny(_)
        ));
        self.access.authenticate_slowly(&request)
    }

    fn device(&self, username: Option<&str>, password: &str) -> Identity {
        match self.judge(username, password) {
            Verdict::Allow { identity, .. } => identity,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_refused(&self, password: &str) {
        let verdict = self.judge(None, password);
        let is_no = matches!(verdict, Verdict::Deny(Reason::BadUserNameOrPassword));
        assert!(is_no, "{verdict:?}");
    }
}

#[test]
fn a_token_lets_its_device_in_and_no_other() {
    let world = world();
    let token = world.token.reveal();
    for name in [None, Some(""), Some("phone-1")] {
        let identity = world.device(name, token);
        let device = identity.device.unwrap();
        assert_eq!((device.user.as_deref(), device.expires_at), (None, None));
        assert_eq!(identity.username, None);
    }
    let other = DeviceToken::from_random([8; 32]);
    world.check_refused(other.reveal());
    let verdict = world.judge(Some("phone-2"), token);
    assert!(matches!(
        verdict,
        Verdict::Deny(Reason::BadUserNameOrPassword)
    ));
    world.run(|context, app| tokens::revoke(context, app, "phone-1"));
    world.check_refused(token);
}

#[test]
fn a_signed_token_lets_in_whom_it_names() {
    let world = world();
    let device = |password: &str| world.device(None, password).device.unwrap();
    let found = device(&world.signed(Some("k1"), json!({"user": "ann"})));
    assert_eq!(found.user.as_deref(), Some("ann"));
    assert!(found.binds_user);
    let left_ms = found.expires_at.unwrap().0 - world.clock.now().0;
    assert!((80_000..=90_000).contains(&left_ms), "{left_ms}");
    // The only key need not be named.
    assert_eq!(device(&world.signed(None, json!({}))).user, None);
    // Without the claim, the user is who the device is bound to.
    world.patch(r#"{"user": "bob"}"#);
    let found = device(&world.signed(Some("k1"), json!({})));
    assert_eq!(
        (found.user.as_deref(), found.binds_user),
        (Some("bob"), false)
    );
    for changes in [
        json!({"sub": "phone-2"}),
        json!({"aud": "forum"}),
        json!({"exp": 1}),
    ] {
        world.check_refused(&world.signed(Some("k1"), changes));
    }
    world.check_refused(&world.signed(Some("k2"), json!({})));
    let mut broken = world.signed(Some("k1"), json!({}));
    broken.truncate(broken.len() - 2);
    world.check_refused(&broken);
}

#[test]
fn a_key_that_was_just_added_is_found_and_one_that_was_removed_ends_soon() {
    let world = world();
    world.add_key("k2");
    world.device(None, &world.signed(Some("k2"), json!({})));
    world.run(|context, app| device_keys::remove(context, app, "k1"));
    world.access.devices().refresh_all();
    world.check_refused(&world.signed(Some("k1"), json!({})));
}

#[test]
fn a_connection_stays_where_the_operator_says_so() {
    let clients = config::Clients {
        disconnect_expired: false,
        ..config::Clients::default()
    };
    let world = world_with(&clients, &[]);
    let identity = world.device(None, &world.signed(Some("k1"), json!({})));
    assert_eq!(identity.device.unwrap().expires_at, None);
}

#[test]
fn a_listener_takes_only_what_it_is_set_to() {
    let listener = |auth: &[config::Way]| config::Listener {
        auth: auth.to_vec(),
        ..config::Listener::default()
    };
    let anonymous = config::Clients {
        allow_anonymous: true,
        ..config::Clients::default()
    };
    let tokens_only = world_with(&anonymous, &[listener(&[config::Way::Token])]);
    tokens_only.device(None, tokens_only.token.reveal());
    tokens_only.check_refused(&tokens_only.signed(Some("k1"), json!({})));
    tokens_only.check_refused("password");
    let request = |password: Option<&str>| AuthRequest {
        app: AppId::new("shop"),
        listener: "mqtt".into(),
        peer: "127.0.0.1:5".parse().unwrap(),
        client_id: "phone-1".into(),
        username: None,
        password: password.map(|password| password.as_bytes().into()),
        method: None,
        data: None,
        state: None,
        identity: None,
    };
    let verdict = tokens_only.access.authenticate(&request(None));
    assert!(matches!(verdict, Verdict::Deny(Reason::NotAuthorized)));
    let others = [config::Way::Password, config::Way::Anonymous];
    let no_tokens = world_with(&anonymous, &[listener(&others)]);
    no_tokens.check_refused(no_tokens.token.reveal());
    let verdict = no_tokens.access.authenticate(&request(None));
    assert!(matches!(verdict, Verdict::Allow { .. }));
}

#[test]
fn a_device_may_do_what_its_app_says() {
    let world = world();
    world.patch(r#"{"user": "ann"}"#);
    let identity = world.device(None, world.token.reveal());
    let publish = |topic: &str| world.access.may_publish(&identity, "phone-1", topic);
    let subscribe = |filter: &str| world.access.may_subscribe(&identity, "phone-1", filter);
    assert!(subscribe("users/ann/#") && subscribe("push/in") && subscribe("push/ctl"));
    assert!(!subscribe("users/bob/#") && !subscribe("users/#") && !subscribe("#"));
    assert!(!publish("users/ann/x") && !publish("a"));
    let body = br#"{"publish": ["d/{client}/#"], "subscribe": ["news/+", "d/{client}/{user}"]}"#;
    let rules = DeviceRules::parse(body).unwrap();
    world.run(|context, app| device_rules::put(context, app, &rules));
    world.access.devices().refresh_all();
    assert!(publish("d/phone-1/x") && subscribe("news/a") && subscribe("d/phone-1/ann"));
    assert!(!publish("d/phone-2/x") && !publish("news/a") && !subscribe("d/phone-1/bob"));
    assert!(
        !subscribe("users/ann/#"),
        "the setting replaces the default"
    );
}

#[test]
fn what_the_operator_denies_everybody_no_app_allows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acl");
    std::fs::write(&path, "pattern readwrite x\npattern deny news/secret\n").unwrap();
    let clients = config::Clients {
        acl_file: Some(path),
        ..config::Clients::default()
    };
    let world = world_with(&clients, &[]);
    let rules = DeviceRules::parse(br#"{"subscribe": ["news/#"]}"#).unwrap();
    world.run(|context, app| device_rules::put(context, app, &rules));
    world.access.devices().refresh_all();
    let identity = world.device(None, world.token.reveal());
    let subscribe = |filter: &str| world.access.may_subscribe(&identity, "phone-1", filter);
    assert!(subscribe("news/a"));
    assert!(!subscribe("news/#") && !subscribe("news/secret"));
    assert!(!subscribe("x"), "the file allows users, not devices");
}

#[test]
fn without_a_store_a_device_is_asked_to_come_again() {
    let world = world();
    let verdict_of = |password: &str| world.judge(None, password);
    world.access.devices().stop();
    let verdict = verdict_of(world.token.reveal());
    assert!(matches!(verdict, Verdict::Deny(Reason::ServerUnavailable)));
}

#[test]
fn passwords_are_told_from_tokens_by_their_shape() {
    let token = DeviceToken::from_random([7; 32]);
    assert_eq!(Shape::of(token.reveal().as_bytes()), Shape::Token);
    assert_eq!(Shape::of(b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln"), Shape::Signed);
    for password in ["", "secret", "eyJ", "eyJ.x", "a.b.c", "CDT_x"] {
        assert_eq!(
            Shape::of(password.as_bytes()),
            Shape::Password,
            "{password}"
        );
    }
}
