//! What is read, or written, by hand, and so has to be told by hand. Bounds are those of the code.

use campanile_push::{
    audience::{MAX_CLIENT_ID_BYTES, MAX_DEVICES, MAX_USERS},
    compat::fcm,
    device_key::{Algorithm, MAX_PEM_BYTES},
    event::Kind,
    expression,
    frequency::{MAX_CAP_COUNT, MAX_CAP_SECONDS, MIN_CAP_SECONDS},
    lanes::Priority,
    options::{
        DEFAULT_TTL_SECONDS, MAX_EXTERNAL_ID_BYTES, MAX_KEY_BYTES, MAX_LABELS, MAX_PER_SECOND,
        MAX_TTL_SECONDS, MAX_URL_BYTES,
    },
    registry::{
        device_keys::MAX_KID_BYTES,
        device_rules::{MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_TAGS},
        devices::MAX_AT_A_TIME,
    },
    request::batch::MAX_PUSHES,
    schedule, webhook,
};
use serde_json::{Value, json};

use super::reference;

/// All of them by name.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    [
        names(),
        of_pushes(),
        of_devices(),
        of_schedules(),
        of_events(),
        of_credentials(),
        of_others(),
    ]
    .concat()
}

/// An object of these fields and no others.
fn exactly(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

fn text(least: usize, most: usize) -> Value {
    json!({"type": "string", "minLength": least, "maxLength": most})
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

fn named_texts(what: &str, most: usize, item: Value) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": most, "items": item, "description": what})
}

fn whole(least: u64, most: u64, what: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "description": what})
}

fn address(what: &str, most: usize) -> Value {
    json!({
        "type": "string", "pattern": "^https?://", "maxLength": most,
        "description": format!("{what} `https`; `http` only where `webhooks.allow_http` says so."),
    })
}

fn time(what: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": what})
}

fn names() -> Vec<(&'static str, Value)> {
    vec![
        (
            "AppName",
            json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}),
        ),
        (
            "Ulid",
            json!({"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"}),
        ),
        ("Time", time("UTC, with milliseconds.")),
        (
            "Expression",
            json!({
                "type": "string", "minLength": 1, "maxLength": expression::MAX_TEXT_BYTES,
                "description": "An expression over tags and what else is known of devices.",
                "example": "(vip || beta) && platform == \"ios\"",
            }),
        ),
    ]
}

fn of_pushes() -> Vec<(&'static str, Value)> {
    let one = |name: &str, schema: Value| exactly(&[name], json!({name: schema}));
    let tags = || named_texts("Tags.", expression::MAX_TESTS, text(1, 64));
    let by_tags = json!({
        "type": "object", "minProperties": 1, "additionalProperties": false,
        "properties": {"any": tags(), "all": tags(), "none": tags()},
    });
    let words = json!({"type": "string"});
    let time_of_day =
        json!({"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$", "example": "09:00"});
    let overrides = json!({"type": "object", "description": "What this platform shows instead."});
    vec![
        (
            "Audience",
            json!({
                "description": "Whom a push is for: exactly one of these.",
                "oneOf": [
                    one("all", json!({"const": true})),
                    one("devices", named_texts("Client identifiers; a repeated one counts once.", MAX_DEVICES, text(1, MAX_CLIENT_ID_BYTES))),
                    one("users", named_texts("Users, with all their devices.", MAX_USERS, text(1, 128))),
                    one("topic", text(1, 128)),
                    one("tags", by_tags),
                    one("expr", reference("Expression")),
                    one("segment", text(1, 64)),
                    one("upload", text(1, 64)),
                ],
                "example": {"devices": ["phone-1", "tablet-7"]},
            }),
        ),
        (
            "Notification",
            json!({
                "type": "object",
                "description": "What the device shows. Any other field reaches it as it is.",
                "properties": {
                    "title": words, "body": words, "image": words, "click_action": words,
                    "ios": overrides, "android": overrides, "web": overrides,
                },
                "example": {"title": "Shipped", "body": "Your order is on its way"},
            }),
        ),
        (
            "Options",
            exactly(
                &[],
                json!({
                    "ttl": {
                        "type": "integer", "minimum": 0, "maximum": MAX_TTL_SECONDS, "default": DEFAULT_TTL_SECONDS,
                        "description": "Seconds for which the push waits for a device; 0: now or never.",
                    },
                    "priority": {
                        "type": "string", "enum": Priority::ALL.map(Priority::name), "default": Priority::default().name(),
                        "description": "What goes before what.",
                    },
                    "collapse_key": {
                        "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES,
                        "description": "The push takes the place of one of the same key that a device has not got yet.",
                    },
                    "pace": {
                        "description": "How fast it goes to its devices.",
                        "oneOf": [
                            exactly(&["per_second"], json!({"per_second": whole(1, MAX_PER_SECOND, "Devices a second.")})),
                            exactly(&["over"], json!({"over": whole(1, MAX_TTL_SECONDS, "Seconds for all devices.")})),
                        ],
                    },
                    "local_time": {
                        "description": "When the device's own clock shows this: a time of day, or an object.",
                        "oneOf": [
                            time_of_day,
                            exactly(&["at"], json!({
                                "at": time_of_day,
                                "date": {"type": "string", "format": "date"},
                                "if_past": {"type": "string", "enum": ["next_day", "now", "skip"]},
                            })),
                        ],
                    },
                    "quiet_hours": {
                        "type": "object", "required": ["from", "to"],
                        "description": "When devices are left alone.",
                        "properties": {"from": time_of_day, "to": time_of_day, "policy": {"type": "string", "enum": ["delay", "drop"]}},
                    },
                    "frequency_cap": exactly(&["key", "count", "per"], json!({
                        "key": text(1, MAX_KEY_BYTES),
                        "count": whole(1, MAX_CAP_COUNT, "Pushes of this key that a device gets."),
                        "per": whole(MIN_CAP_SECONDS, MAX_CAP_SECONDS, "Seconds."),
                    })),
                    "portion": exactly(&["percent"], json!({
                        "percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "description": "Of the devices that get it first, with at most two decimals."},
                        "hold": whole(1, MAX_TTL_SECONDS, "Seconds after which the others follow; without it they never do."),
                        "auto_halt": exactly(&["error_rate"], json!({
                            "error_rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                            "after": whole(1, 1_000_000, "Outcomes before which nothing is concluded."),
                        })),
                    })),
                    "receipts": {
                        "type": "array", "items": {"type": "string", "enum": ["delivered", "displayed", "clicked", "dismissed"]},
                        "description": "Which are counted, all unless it is said; the first always is.",
                    },
                    "labels": {
                        "type": "object", "maxProperties": MAX_LABELS, "additionalProperties": {"type": "string", "maxLength": 64},
                        "propertyNames": {"pattern": "^[a-z0-9_.-]{1,32}$"}, "description": "By which the list of pushes can be searched.",
                    },
                    "external_id": {"type": "string", "minLength": 1, "maxLength": MAX_EXTERNAL_ID_BYTES, "description": "Your own name of the push."},
                    "callback_url": address("Told the push's report in the end.", MAX_URL_BYTES),
                    "not_before": time("A time before which the push is not made, at most five years ahead. Not in a schedule."),
                }),
            ),
        ),
        ("Push", {
            let mut push = exactly(
                &["audience"],
                json!({
                    "audience": reference("Audience"),
                    "notification": reference("Notification"),
                    "data": {"type": "object", "description": "Reaches the device as it is."},
                    "options": reference("Options"),
                }),
            );
            push["anyOf"] = json!([{"required": ["notification"]}, {"required": ["data"]}]);
            push["description"] = "A push. `notification` and `data` together have at most as many bytes as the setting `http.max_payload_bytes` says, 4096 if it does not.".into();
            push["example"] = json!({
                "audience": {"devices": ["phone-1"]}, "notification": {"title": "Shipped"}, "data": {"order": 1234}, "options": {"ttl": 86400},
            });
            push
        }),
        (
            "Pushes",
            exactly(
                &["pushes"],
                json!({
                    "pushes": {
                        "type": "array", "minItems": 1, "maxItems": MAX_PUSHES, "items": {},
                        "description": "Each is taken as a `Push`, or refused by itself.",
                    },
                }),
            ),
        ),
    ]
}

fn of_devices() -> Vec<(&'static str, Value)> {
    let tags = json!({"type": ["array", "null"], "maxItems": 256, "items": text(1, 64), "description": "The whole set."});
    let topics = json!({"type": ["array", "null"], "maxItems": 256, "items": text(1, 128), "description": "The whole set."});
    let value = json!({"type": ["string", "number", "boolean", "null"], "maxLength": 256});
    let attributes = json!({
        "type": ["object", "null"], "maxProperties": 64, "additionalProperties": value,
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$"}, "description": "Merged; `null` removes one.",
    });
    let tokens = json!({
        "type": ["object", "null"], "maxProperties": 8, "additionalProperties": or_null(text(1, 2048)),
        "propertyNames": {"pattern": "^[a-z0-9_-]{1,32}$"}, "description": "By vendor. Merged; `null` removes one.",
    });
    let platform =
        json!({"type": ["string", "null"], "pattern": "^[a-z0-9_-]{1,32}$", "example": "ios"});
    let language = json!({"type": ["string", "null"], "pattern": "^[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*$", "maxLength": 35, "description": "A language tag of BCP 47.", "example": "pt-BR"});
    let time_zone = json!({"type": ["string", "null"], "minLength": 1, "maxLength": 64, "description": "A name of the IANA database.", "example": "Europe/Berlin"});
    let said = json!({
        "platform": {"type": "string"}, "app_version": {"type": "string"}, "language": {"type": "string"},
        "time_zone": {"type": "string"}, "user": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "topics": {"type": "array", "items": {"type": "string"}},
        "attributes": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "tokens": {"type": "array", "items": {"type": "string"}, "description": "Vendors that have one; the tokens are not shown."},
        "since": {"type": "object", "additionalProperties": reference("Time"), "description": "Since when each fact holds."},
        "created_at": reference("Time"),
        "updated_at": reference("Time"),
    });
    vec![
        ("DeviceChange", {
            let mut change = exactly(
                &[],
                json!({
                    "platform": platform, "app_version": or_null(text(1, 64)), "language": language, "time_zone": time_zone,
                    "user": or_null(text(1, 128)), "tags": tags, "topics": topics, "attributes": attributes, "tokens": tokens,
                }),
            );
            change["description"] =
                "What is known of a device. `null` clears a field. All together at most 16 KiB."
                    .into();
            change["example"] = json!({"platform": "ios", "app_version": "3.2", "user": "u1", "tags": ["vip"], "attributes": {"plan": "gold"}});
            change
        }),
        (
            "Profile",
            json!({
                "type": "object", "properties": said,
                "required": ["tags", "topics", "attributes", "tokens", "since", "created_at", "updated_at"],
            }),
        ),
        (
            "DeviceList",
            exactly(
                &["devices"],
                json!({
                    "devices": named_texts("Client identifiers; a repeated one counts once.", MAX_AT_A_TIME, text(1, 256)),
                }),
            ),
        ),
        (
            "SegmentChange",
            exactly(&["expr"], json!({"expr": reference("Expression")})),
        ),
    ]
}

fn of_schedules() -> Vec<(&'static str, Value)> {
    let at = exactly(
        &["at"],
        json!({"at": time("A time to come, at most five years ahead.")}),
    );
    let expression = json!({"type": "string", "description": "Minute, hour, day of the month, month, day of the week.", "example": "0 9 * * 1"});
    let cron = exactly(
        &["cron", "time_zone"],
        json!({
            "cron": expression,
            "time_zone": {"type": "string", "not": {"const": schedule::DEVICE}, "description": "A name of the IANA database.", "example": "Europe/Vienna"},
        }),
    );
    let by_device = json!({"const": schedule::DEVICE, "description": "Each device's own clock."});
    let if_past = json!({
        "type": "string", "enum": ["now", "skip"],
        "description": "What devices get whose clock has shown the time when the push is made. If absent, as `missed` says: `now` with `run_once`.",
    });
    let clock = exactly(
        &["at", "time_zone"],
        json!({
            "at": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}$", "description": "What the devices' clocks show.", "example": "2026-12-24T18:00"},
            "time_zone": by_device, "if_past": if_past,
        }),
    );
    let clocks = exactly(
        &["cron", "time_zone"],
        json!({"cron": expression, "time_zone": by_device, "if_past": if_past}),
    );
    let fields = |end: fn(Value) -> Value| {
        json!({
            "name": {"type": "string", "maxLength": schedule::MAX_NAME_BYTES},
            "when": {"oneOf": [at, cron, clock, clocks]},
            "push": reference("Push"),
            "missed": {"type": "string", "enum": ["run_once", "skip"], "description": "What becomes of runs that would come late."},
            "grace": {
                "type": "integer", "minimum": 0, "maximum": schedule::MAX_GRACE_SECONDS, "default": schedule::DEFAULT_GRACE_SECONDS,
                "description": "Seconds by which a run may be late and still count as on time.",
            },
            "until": end(time("Nothing is planned after it.")),
            "max_runs": end(json!({"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Planned runs after which it ends."})),
        })
    };
    let run = json!({
        "type": "object", "required": ["planned_at", "push_id"],
        "properties": {
            "planned_at": reference("Time"), "push_id": reference("Ulid"),
            "local_time": {"type": "string", "description": "What the devices' clocks show when they get it."},
        },
    });
    let local_run = json!({
        "type": "object", "required": ["local_time", "first_at", "last_at"],
        "properties": {"local_time": {"type": "string"}, "first_at": reference("Time"), "last_at": reference("Time")},
    });
    let count = json!({"type": "integer", "minimum": 0});
    vec![
        (
            "ScheduleRequest",
            exactly(&["when", "push"], fields(|end| end)),
        ),
        ("ScheduleChange", exactly(&[], fields(or_null))),
        (
            "Schedule",
            json!({
                "type": "object",
                "required": ["id", "name", "when", "push", "state", "missed", "grace", "created_at", "next_runs", "waiting", "runs", "runs_by_hand", "runs_missed", "runs_failed"],
                "properties": {
                    "id": reference("Ulid"),
                    "name": {"type": "string"},
                    "when": {"type": "object", "properties": {"at": {"type": "string"}, "cron": {"type": "string"}, "time_zone": {"type": "string"}, "if_past": {"type": "string"}}},
                    "push": {"type": "object", "description": "As it was asked for."},
                    "state": {"type": "string", "enum": ["active", "paused", "ended"]},
                    "missed": {"type": "string", "enum": ["run_once", "skip"]},
                    "grace": count, "until": reference("Time"), "max_runs": count, "created_at": reference("Time"),
                    "next_runs": {"type": "array", "items": reference("Time"), "maxItems": 5, "description": "By the devices' clocks: when the first of them shows the time."},
                    "next_local_runs": {"type": "array", "items": local_run, "maxItems": 5, "description": "The same by the devices' clocks: what they show, and when the first and the last clock on earth does."},
                    "waiting": {"type": "array", "items": run, "description": "Runs that are chosen and about to be made."},
                    "runs": count, "runs_by_hand": count, "runs_missed": count, "runs_failed": count,
                    "last_run": run,
                    "last_failure": {"type": "string", "description": "Why the last run's push was refused."},
                },
            }),
        ),
        (
            "Schedules",
            json!({
                "type": "object", "required": ["schedules"],
                "properties": {"schedules": {"type": "array", "items": reference("Schedule")}, "next": reference("Ulid")},
            }),
        ),
    ]
}

fn of_events() -> Vec<(&'static str, Value)> {
    let names = Kind::ALL.map(|(_, name)| name);
    let mut families: Vec<String> = names
        .iter()
        .filter_map(|name| name.split_once('.'))
        .map(|(family, _)| format!("{family}.*"))
        .collect();
    families.dedup();
    let mut patterns: Vec<&str> = names.to_vec();
    patterns.extend(families.iter().map(String::as_str));
    patterns.push("*");
    let fields = json!({
        "url": address("Where requests go.", webhook::MAX_URL_BYTES),
        "events": {
            "type": "array", "minItems": 1, "items": {"type": "string", "enum": patterns},
            "description": "Which; all if it is not said.",
        },
        "state": {"type": "string", "enum": ["active", "paused"], "description": "While it is paused, events wait as long as they are kept."},
    });
    let list = |name: &str, of: &str| {
        json!({
            "type": "object", "required": [name],
            "properties": {name: {"type": "array", "items": reference(of)}, "next": reference("Ulid")},
        })
    };
    vec![
        (
            "Event",
            json!({
                "type": "object", "required": ["id", "type", "app", "time"],
                "properties": {
                    "id": reference("Ulid"),
                    "type": {"type": "string", "examples": names},
                    "app": reference("AppName"),
                    "time": reference("Time"),
                    "device": {"type": "string", "description": "That it is about."},
                    "push_id": reference("Ulid"),
                    "data": {"type": "object", "description": "What belongs to it, by its type."},
                },
            }),
        ),
        ("Timeline", list("events", "Event")),
        ("WebhookRequest", exactly(&["url"], fields.clone())),
        ("WebhookChange", exactly(&[], fields)),
        (
            "Webhook",
            json!({
                "type": "object", "required": ["id", "url", "events", "state", "created_at"],
                "properties": {
                    "id": reference("Ulid"),
                    "url": {"type": "string", "format": "uri"},
                    "events": {"type": "array", "items": {"type": "string"}},
                    "state": {"type": "string", "enum": ["active", "paused", "disabled"]},
                    "disabled_at": time("When it was switched off, as it only failed or was gone."),
                    "failing_since": reference("Time"),
                    "created_at": reference("Time"),
                    "secret": {"type": "string", "description": "What signs its requests. Shown only when it is new."},
                },
            }),
        ),
        ("Webhooks", list("webhooks", "Webhook")),
        (
            "Replay",
            exactly(
                &[],
                json!({
                    "ids": named_texts("Which; all if it is not said.", webhook::MAX_REPLAYED, reference("Ulid")),
                }),
            ),
        ),
    ]
}

fn of_credentials() -> Vec<(&'static str, Value)> {
    let with = |algorithms: &[&str], field: &str, value: Value| {
        exactly(
            &["kid", "algorithm", field],
            json!({
                "kid": {"type": "string", "pattern": format!("^[A-Za-z0-9._-]{{1,{MAX_KID_BYTES}}}$"), "description": "Its name, which tokens carry."},
                "algorithm": {"type": "string", "enum": algorithms},
                field: value,
            }),
        )
    };
    let secret = Algorithm::Hs256.text();
    let public: Vec<&str> = Algorithm::ALL
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != secret)
        .collect();
    let topics = |what: &str| {
        json!({
            "type": "array", "maxItems": MAX_PATTERNS, "items": text(1, MAX_PATTERN_BYTES),
            "description": format!("Topic filters with `{{client}}` and `{{user}}`: where devices may {what}."),
        })
    };
    let rules = json!({
        "publish": topics("publish"),
        "subscribe": topics("subscribe"),
        "tags": {
            "type": ["array", "null"], "maxItems": MAX_TAGS, "items": text(1, 64),
            "description": "Tags that devices may set on themselves; `null`: all.",
        },
    });
    let mut shown = exactly(&["publish", "subscribe", "tags"], rules.clone());
    shown["description"] = "What devices may do that prove who they are.".into();
    let pem = json!({"type": "string", "maxLength": MAX_PEM_BYTES, "description": "In PEM."});
    let base64 = json!({"type": "string", "description": "Base64 with padding."});
    vec![
        (
            "DeviceKeyRequest",
            json!({"oneOf": [with(&public, "public_key", pem), with(&[secret], "secret", base64)]}),
        ),
        ("DeviceRules", shown),
        ("DeviceRulesRequest", exactly(&[], rules)),
    ]
}

fn of_others() -> Vec<(&'static str, Value)> {
    let number = json!({"type": "integer"});
    vec![
        (
            "Explained",
            json!({
                "type": "object", "required": ["code", "message"],
                "description": "What belongs to the code, such as a `tag` or a time `at`, is beside it.",
                "properties": {
                    "code": {
                        "type": "string",
                        "examples": [
                            "delivered", "displayed", "clicked", "dismissed", "not_in_audience", "registered_later", "tag_added_later", "tag_removed",
                            "muted", "left_audience", "dropped_by_quota", "expired", "queued", "away", "device_not_found",
                        ],
                    },
                    "message": {"type": "string"},
                },
            }),
        ),
        (
            "FcmRequest",
            exactly(
                &["message"],
                json!({
                    "validate_only": {"type": ["boolean", "null"]},
                    "message": {
                        "type": "object",
                        "description": format!("A message of FCM's HTTP v1, with one of `token`, `topic` and `condition` (of at most {} topics). Fields that mean nothing here are refused by name.", fcm::MAX_TOPICS),
                    },
                }),
            ),
        ),
        (
            "FcmError",
            json!({
                "type": "object", "required": ["error"],
                "properties": {"error": {
                    "type": "object", "required": ["code", "message", "status", "details"],
                    "properties": {"code": number, "message": {"type": "string"}, "status": {"type": "string"}, "details": {"type": "array", "items": {"type": "object"}}},
                }},
            }),
        ),
        (
            "JpushRequest",
            exactly(
                &["platform", "audience"],
                json!({
                    "platform": {"type": ["string", "array"]},
                    "audience": {"type": ["string", "object"]},
                    "notification": {"type": ["object", "null"]},
                    "message": {"type": ["object", "null"]},
                    "options": {"type": ["object", "null"]},
                    "cid": {"type": ["string", "null"], "description": "The idempotency key."},
                }),
            ),
        ),
        (
            "JpushError",
            json!({
                "type": "object", "required": ["error"],
                "properties": {"error": {
                    "type": "object", "required": ["code", "message"],
                    "properties": {"code": number, "message": {"type": "string"}},
                }},
            }),
        ),
    ]
}
