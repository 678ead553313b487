//! Rules of `[cluster]` and `[redis]` that span keys.

use super::{Loaded, Problem, RedisDurability, RedisMode, StoreKind, TlsFiles};

/// Adds what is wrong with the cluster and its Redis.
pub(super) fn check(loaded: &Loaded, problems: &mut Vec<Problem>) {
    check_redis(loaded, problems);
    check_cluster(loaded, problems);
}

/// Adds what is odd.
pub(super) fn warn(loaded: &Loaded, warnings: &mut Vec<Problem>) {
    let settings = &loaded.settings;
    let redis = &settings.redis;
    let in_redis = settings.store.kind == StoreKind::Redis;
    if in_redis && redis.allow_eviction {
        warnings.push(loaded.problem("redis.allow_eviction", "a Redis that evicts keys loses accepted messages when its memory is full: set maxmemory-policy noeviction there"));
    }
    if in_redis && redis.allow_no_persistence {
        warnings.push(loaded.problem(
            "redis.allow_no_persistence",
            "a Redis that keeps nothing on disk loses everything when all its servers stop",
        ));
    }
    if in_redis && redis.durability == RedisDurability::Primary {
        warnings.push(loaded.problem("redis.durability", "\"primary\": what was accepted in the last moments before the primary's death may be lost"));
    }
    let cluster = &settings.cluster;
    if cluster.is_member() && cluster.peer_tls == TlsFiles::default() {
        let reachable = !cluster
            .peer_advertised(cluster.peer_address)
            .ip()
            .is_loopback();
        if reachable {
            warnings.push(loaded.problem("cluster.peer_tls_ca", "links between nodes are neither encrypted nor authenticated: whoever reaches cluster.peer_address can pose as a node"));
        }
    }
}

fn check_redis(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let redis = &loaded.settings.redis;
    let mut wrong = |key: &str, message: &str| {
        problems.push(loaded.problem(&format!("redis.{key}"), message));
    };
    if loaded.settings.store.kind != StoreKind::Redis {
        if !redis.addresses.is_empty() {
            wrong(
                "addresses",
                "it has no effect while the state is not in Redis: set store.kind = \"redis\"",
            );
        }
        return;
    }
    if redis.addresses.is_empty() {
        wrong(
            "addresses",
            "store.kind \"redis\" needs it: name a server, such as [\"127.0.0.1:6379\"]",
        );
    }
    if redis.mode == RedisMode::Standalone && redis.addresses.len() > 1 {
        wrong(
            "addresses",
            "mode \"standalone\" has one server: name one, or set mode = \"sentinel\" or \"cluster\"",
        );
    }
    if redis.mode == RedisMode::Cluster && redis.database != 0 {
        wrong(
            "database",
            "Redis Cluster has only database 0: remove it, or keep clusters apart with redis.prefix",
        );
    }
    let of_sentinel = [
        ("master_name", !redis.master_name.is_empty()),
        ("sentinel_password", !redis.sentinel_password.is_empty()),
    ];
    if redis.mode == RedisMode::Sentinel {
        if redis.master_name.is_empty() {
            wrong(
                "master_name",
                "mode \"sentinel\" needs it: the name of the primary in \"sentinel monitor NAME ...\"",
            );
        }
    } else {
        for (key, _) in of_sentinel.into_iter().filter(|(_, is_set)| *is_set) {
            wrong(
                key,
                "only mode \"sentinel\" uses it: set redis.mode, or remove it",
            );
        }
    }
    if !redis.username.is_empty() && redis.password.is_empty() {
        wrong(
            "password",
            "redis.username needs a password: set it here, or in the environment as CAMPANILE_REDIS__PASSWORD",
        );
    }
    if redis.give_up_after < redis.command_timeout {
        wrong(
            "give_up_after",
            "it is shorter than command_timeout, which could never run out: raise this or lower that",
        );
    }
    if !redis.tls && redis.tls_files.any() {
        wrong(
            "tls",
            "files for TLS are named, but it is off: set tls = true, or remove tls_ca, tls_certificate and tls_key",
        );
    }
    check_pair("redis.tls_", &redis.tls_files, loaded, problems);
}

fn check_cluster(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let settings = &loaded.settings;
    let cluster = &settings.cluster;
    if !cluster.is_member() {
        if !cluster.advertise.is_empty() || cluster.peer_advertise.is_some() {
            problems.push(loaded.problem("cluster.zookeeper", "other keys of [cluster] are set, but without it this node is alone: name the ensemble's servers, such as [\"zk-1:2181\", \"zk-2:2181\", \"zk-3:2181\"]"));
        }
        return;
    }
    let mut wrong = |key: &str, message: String| {
        problems.push(loaded.problem(key, message));
    };
    if settings.store.kind != StoreKind::Redis {
        wrong("store.kind", "the nodes of a cluster share a Redis: set store.kind = \"redis\" and redis.addresses, or remove cluster.zookeeper".to_owned());
    }
    if let Some(advertised) = cluster.peer_advertise {
        if advertised.ip().is_unspecified() || advertised.port() == 0 {
            wrong(
                "cluster.peer_advertise",
                format!(
                    "nobody can connect to {advertised}: name the address and port under which the other nodes reach this one"
                ),
            );
        }
    } else if cluster.peer_address.ip().is_unspecified() {
        wrong(
            "cluster.peer_advertise",
            format!(
                "cluster.peer_address {} does not say where the other nodes reach this one: set it, such as \"10.0.0.1:7883\"",
                cluster.peer_address
            ),
        );
    }
    if cluster.advertise.is_empty() {
        let vague = settings
            .listeners
            .iter()
            .find(|listener| listener.address.ip().is_unspecified());
        if let Some(listener) = vague {
            wrong(
                "cluster.advertise",
                format!(
                    "the listener {:?} at {} does not say where devices reach it: list what they shall connect to, such as [\"mqtt://push-1.example:1883\"]",
                    listener.name, listener.address
                ),
            );
        }
    }
    let same_port = |other: std::net::SocketAddr| {
        other == cluster.peer_address && cluster.peer_address.port() != 0
    };
    let taken = settings
        .listeners
        .iter()
        .map(|listener| listener.address)
        .chain([settings.http.address])
        .any(same_port);
    if taken {
        wrong(
            "cluster.peer_address",
            format!(
                "{} is that of a listener or of http.address already",
                cluster.peer_address
            ),
        );
    }
    if cluster.peer_tls.any() && !cluster.peer_tls.all() {
        let missing = [
            ("ca", &cluster.peer_tls.ca),
            ("certificate", &cluster.peer_tls.certificate),
            ("key", &cluster.peer_tls.key),
        ];
        for (key, _) in missing.into_iter().filter(|(_, file)| file.is_none()) {
            wrong(&format!("cluster.peer_tls_{key}"), "TLS between nodes is mutual and needs all of peer_tls_ca, peer_tls_certificate and peer_tls_key: name a PEM file".to_owned());
        }
    }
    if cluster.zookeeper_tls.ca.is_none() && cluster.zookeeper_tls.any() {
        wrong(
            "cluster.zookeeper_tls_ca",
            "TLS to ZooKeeper needs the authorities of its servers: name a PEM file".to_owned(),
        );
    }
    check_pair(
        "cluster.zookeeper_tls_",
        &cluster.zookeeper_tls,
        loaded,
        problems,
    );
}

fn check_pair(prefix: &str, files: &TlsFiles, loaded: &Loaded, problems: &mut Vec<Problem>) {
    if let Some((missing, given)) = files.half_of_a_pair() {
        let message = format!("{prefix}{given} is of no use without it: name a PEM file");
        problems.push(loaded.problem(&format!("{prefix}{missing}"), message));
    }
}

/// Mistakes in the files that the cluster's TLS keys name.
pub(super) fn file_mistakes(loaded: &Loaded) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut all = Vec::new();
    let mut add = |prefix: &str, files: &TlsFiles| {
        for (key, message) in files.mistakes() {
            all.push(loaded.problem(&format!("{prefix}{key}"), message));
        }
    };
    if settings.cluster.is_member() {
        add("cluster.zookeeper_tls_", &settings.cluster.zookeeper_tls);
        add("cluster.peer_tls_", &settings.cluster.peer_tls);
    }
    if settings.store.kind == StoreKind::Redis {
        add("redis.tls_", &settings.redis.tls_files);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Problems, parse};

    fn messages(text: &str) -> Vec<String> {
        match parse(Path::new("c.toml"), text) {
            Ok(_) => Vec::new(),
            Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    const MEMBER: &str = "[store]\nkind = 'redis'\n[redis]\naddresses = ['r:6379']\n[cluster]\nzookeeper = ['z:2181']\n";

    #[test]
    fn a_member_says_where_it_is_reached() {
        assert_eq!(
            messages(MEMBER),
            [
                "cluster.peer_advertise: cluster.peer_address 0.0.0.0:7883 does not say where the other nodes reach this one: set it, such as \"10.0.0.1:7883\"",
                "cluster.advertise: the listener \"mqtt\" at 0.0.0.0:1883 does not say where devices reach it: list what they shall connect to, such as [\"mqtt://push-1.example:1883\"]",
            ]
        );
        let told = "peer_advertise = '10.0.0.1:7883'\nadvertise = ['mqtt://a:1883']\n";
        assert_eq!(messages(&format!("{MEMBER}{told}")), [""; 0]);
        let specific = "peer_address = '127.0.0.1:0'\n[[listeners]]\naddress = '127.0.0.1:0'\n";
        assert_eq!(messages(&format!("{MEMBER}{specific}")), [""; 0]);
    }

    #[test]
    fn a_cluster_needs_a_redis_and_a_redis_needs_to_be_wanted() {
        let keys = |text: &str| -> Vec<String> {
            let key = |message: &String| {
                message
                    .split(": ")
                    .find(|part| !part.starts_with("c.toml"))
                    .unwrap_or_default()
                    .to_owned()
            };
            messages(text).iter().map(key).collect()
        };
        let told = "peer_advertise = '10.0.0.1:7883'\nadvertise = ['mqtt://a:1883']\n";
        assert_eq!(
            keys(&format!("[cluster]\nzookeeper = ['z:2181']\n{told}")),
            ["store.kind"]
        );
        assert_eq!(keys(&format!("[cluster]\n{told}")), ["cluster.zookeeper"]);
        assert_eq!(keys("[redis]\naddresses = ['r:1']\n"), ["redis.addresses"]);
        assert_eq!(keys("[store]\nkind = 'redis'\n"), ["redis.addresses"]);
        let alone = "[store]\nkind = 'redis'\n[redis]\naddresses = ['r:1']\n";
        assert_eq!(keys(alone), [""; 0]);
    }

    #[test]
    fn all_contradictions_are_named_at_once() {
        let text = "[store]\nkind = 'redis'\n[redis]\naddresses = ['r:1', 's:1', 'nowhere']\nmaster_name = 'm'\nusername = 'u'\ntls_certificate = 'c.pem'\ngive_up_after = '500ms'\n\
            [cluster]\nzookeeper = ['z:2181']\nzookeeper_auth = 'hunter2'\npeer_tls_ca = 'ca.pem'\npeer_advertise = '0.0.0.0:7883'\nadvertise = ['http://a:1']\n";
        let found = messages(text);
        let expected = [
            "c.toml:4: redis.addresses[2]: \"nowhere\" is not a host and a port",
            "c.toml:4: redis.addresses: mode \"standalone\" has one server",
            "c.toml:5: redis.master_name: only mode \"sentinel\" uses it",
            "c.toml:8: redis.give_up_after: it is shorter",
            "c.toml:11: cluster.zookeeper_auth: \"user:password\" is expected",
            "c.toml:13: cluster.peer_advertise: nobody can connect to 0.0.0.0:7883",
            "c.toml:14: cluster.advertise[0]: \"http://a:1\" has another scheme",
            "redis.password: redis.username needs a password",
            "redis.tls: files for TLS are named",
            "redis.tls_key: redis.tls_certificate is of no use without it",
            "cluster.peer_tls_certificate: TLS between nodes is mutual",
            "cluster.peer_tls_key: TLS between nodes is mutual",
        ];
        for beginning in expected {
            let count = found.iter().filter(|m| m.starts_with(beginning)).count();
            assert_eq!(count, 1, "{beginning}: {found:#?}");
        }
        assert!(!found.iter().any(|message| message.contains("hunter2")));
    }
}
