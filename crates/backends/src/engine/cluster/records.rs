//! Records that only a store has which nodes share. Never reuse a tag.

use std::sync::Arc;

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, ClientKey},
    store::{Change, DurableMember, QoS},
};

use crate::engine::{
    kv::KvError,
    records::{MessageRecord, SubscriptionRecord, damaged, id_of, qos},
};

/// A client by name, where its key may hold but a hash of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClientRecord {
    #[prost(string, tag = "1")]
    pub app: String,
    #[prost(string, tag = "2")]
    pub client_id: String,
}

impl ClientRecord {
    pub fn of(client: &ClientKey) -> ClientRecord {
        ClientRecord {
            app: client.app.as_str().to_owned(),
            client_id: client.client_id.as_ref().to_owned(),
        }
    }

    pub fn client(&self) -> ClientKey {
        ClientKey::new(&AppId::new(&self.app), &self.client_id)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NoteRecord {
    #[prost(message, required, tag = "1")]
    pub client: ClientRecord,
    /// The entry of its inbox.
    #[prost(uint64, tag = "2")]
    pub entry: u64,
    /// The lane of that entry, by its code.
    #[prost(uint32, tag = "3")]
    pub lane: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EphemeralRecord {
    #[prost(message, required, tag = "1")]
    pub client: ClientRecord,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub owner: u64,
    #[prost(uint32, tag = "4")]
    pub ordinal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxRecord {
    /// Notes that are there.
    #[prost(uint64, tag = "1")]
    pub notes: u64,
    /// The last one that was forgotten unread.
    #[prost(uint64, tag = "2")]
    pub lost_to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangesRecord {
    /// The last change.
    #[prost(uint64, tag = "1")]
    pub end: u64,
    /// The last one that was forgotten.
    #[prost(uint64, tag = "2")]
    pub trimmed_to: u64,
    /// Changes that are there.
    #[prost(uint64, tag = "3")]
    pub entries: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FilterRecord {
    #[prost(string, tag = "1")]
    pub filter: String,
    #[prost(uint64, tag = "2")]
    pub sessions: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberRecord {
    #[prost(string, tag = "1")]
    pub filter: String,
    #[prost(string, tag = "2")]
    pub client_id: String,
    /// None: it left.
    #[prost(message, optional, tag = "3")]
    pub granted: Option<GrantRecord>,
}

impl MemberRecord {
    pub fn of(filter: &str, client_id: &str, member: Option<DurableMember>) -> MemberRecord {
        MemberRecord {
            filter: filter.to_owned(),
            client_id: client_id.to_owned(),
            granted: member.map(|member| GrantRecord {
                qos: member.qos as u32,
                subscription_id: member.subscription_id,
                retain_as_published: member.retain_as_published,
            }),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GrantRecord {
    #[prost(uint32, tag = "1")]
    pub qos: u32,
    #[prost(uint32, optional, tag = "2")]
    pub subscription_id: Option<u32>,
    #[prost(bool, tag = "3")]
    pub retain_as_published: bool,
}

impl GrantRecord {
    pub fn member(&self) -> Result<DurableMember, KvError> {
        Ok(DurableMember {
            qos: qos(self.qos)?,
            subscription_id: self.subscription_id,
            retain_as_published: self.retain_as_published,
        })
    }
}

/// What a subscription makes of its session in a shared one.
pub fn member_of(subscription: &SubscriptionRecord) -> Result<DurableMember, KvError> {
    let qos: QoS = qos(subscription.qos)?;
    Ok(DurableMember {
        qos,
        subscription_id: subscription.id,
        retain_as_published: subscription.retain_as_published,
    })
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeRecord {
    #[prost(oneof = "ChangeKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<ChangeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ChangeKind {
    #[prost(message, tag = "1")]
    Retained(RetainedRecord),
    #[prost(message, tag = "2")]
    Filter(PresenceRecord),
    #[prost(message, tag = "3")]
    Member(MemberRecord),
    #[prost(message, tag = "4")]
    Profile(ProfileRecord),
    #[prost(message, tag = "5")]
    Campaign(CampaignRecord),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CampaignRecord {
    #[prost(fixed64, tag = "1")]
    pub push_high: u64,
    #[prost(fixed64, tag = "2")]
    pub push_low: u64,
    /// None: there is none any more.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub row: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProfileRecord {
    #[prost(string, tag = "1")]
    pub client_id: String,
    /// None: there is none any more.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub profile: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RetainedRecord {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(message, optional, tag = "2")]
    pub message: Option<MessageRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PresenceRecord {
    #[prost(string, tag = "1")]
    pub filter: String,
    #[prost(bool, tag = "2")]
    pub present: bool,
}

impl ChangeRecord {
    pub fn of(change: &Change) -> ChangeRecord {
        let kind = match change {
            Change::Retained { topic, message } => ChangeKind::Retained(RetainedRecord {
                topic: topic.as_ref().to_owned(),
                message: message.as_deref().map(MessageRecord::of),
            }),
            Change::Filter { filter, present } => ChangeKind::Filter(PresenceRecord {
                filter: filter.as_ref().to_owned(),
                present: *present,
            }),
            Change::Member {
                filter,
                client_id,
                member,
            } => ChangeKind::Member(MemberRecord::of(filter, client_id, *member)),
            Change::Profile { client_id, profile } => ChangeKind::Profile(ProfileRecord {
                client_id: client_id.as_ref().to_owned(),
                profile: profile.clone(),
            }),
            Change::Campaign { push, row } => ChangeKind::Campaign(CampaignRecord {
                push_high: (push.0 >> 64) as u64,
                push_low: push.0 as u64,
                row: row.clone(),
            }),
        };
        ChangeRecord { kind: Some(kind) }
    }

    pub fn change(self) -> Result<Change, KvError> {
        Ok(match self.kind.ok_or_else(|| damaged("change"))? {
            ChangeKind::Retained(record) => Change::Retained {
                topic: record.topic.into(),
                message: record
                    .message
                    .map(|message| message.message())
                    .transpose()?,
            },
            ChangeKind::Filter(record) => Change::Filter {
                filter: record.filter.into(),
                present: record.present,
            },
            ChangeKind::Member(record) => Change::Member {
                filter: record.filter.into(),
                client_id: Arc::from(record.client_id),
                member: record.granted.map(|granted| granted.member()).transpose()?,
            },
            ChangeKind::Profile(record) => Change::Profile {
                client_id: record.client_id.into(),
                profile: record.profile,
            },
            ChangeKind::Campaign(record) => Change::Campaign {
                push: id_of(record.push_high, record.push_low),
                row: record.row,
            },
        })
    }
}
