//! When devices have their turns in campaigns, as what is written to them and what the store says tell.

use campanile_backends::Reader;
use campanile_mqtt::{Packet, Split, split};
use campanile_push::{
    campaign::Campaign,
    device::Profile,
    explanation::{Hold, Time},
    registry::campaigns,
    rows::{Key, Scope, Table},
};

use super::{Ends, api::app, desk::context};
use crate::model::{Held, Sending, Violation};

/// How long after its turn a connected device has a campaign, or the store knows why not.
const SLACK_MS: u64 = 1000;

impl Ends {
    /// What a node has just written to a client.
    pub fn on_written(&mut self, at: usize, output: &[u8]) -> Held {
        if self.desk.is_none() {
            return Ok(());
        }
        let plan = &self.clients[at].plan;
        let (version, mut rest) = (plan.version, output);
        while let Ok(Split::Packet { total_len, .. }) = split(rest, u32::MAX) {
            let packet = Packet::decode(&rest[..total_len], version);
            rest = &rest[total_len..];
            let Ok(Packet::Publish(publish)) = packet else {
                continue;
            };
            let Some(push) = number_of(publish.topic, publish.payload) else {
                continue;
            };
            if push < self.model.pushes.len() {
                self.model.on_campaign_sent(Sending {
                    push,
                    device: at,
                    name: &self.clients[at].plan.name,
                    dup: publish.dup,
                    now: self.now,
                })?;
            }
        }
        Ok(())
    }

    /// Compares what is owed of campaigns by now with what has come. All has come to rest, and everybody is connected.
    pub fn check_campaigns(&mut self, reader: &dyn Reader) -> Held {
        for push in 0..self.model.pushes.len() {
            let (Some(_), Some(id)) = (
                &self.model.pushes[push].campaign,
                self.model.pushes[push].id,
            ) else {
                continue;
            };
            self.check_report(push, reader)?;
            let context = context(reader, self.now);
            let (standing, campaign) = campaigns::standing(&context, &app(), id)
                .map_err(|error| Violation(format!("the row of push{push}: {error}")))?;
            self.model.check_standing(push, standing)?;
            if let Some(campaign) = campaign {
                let owed = self.owed_turns(push, &campaign, reader)?;
                self.model.check_turns(push, &owed)?;
            }
        }
        Ok(())
    }

    /// Clients that are to have a campaign by now.
    fn owed_turns(
        &self,
        push: usize,
        campaign: &Campaign,
        reader: &dyn Reader,
    ) -> Result<Vec<usize>, Violation> {
        let skew = self.model.skew_ms();
        let mut owed = Vec::new();
        if !campaign.goes_on() || self.now.0 + skew >= campaign.expires_ms {
            return Ok(owed);
        }
        for device in self.model.owed_campaign(push) {
            let name = self.clients[device].plan.name.as_str();
            let key = Key::new(Table::Device, name);
            let (row, _) = context(reader, self.now)
                .row(&Scope::App(app()), &key)
                .map_err(|error| Violation(error.to_string()))?;
            let profile = row.and_then(|row| Profile::decode(&row.value).ok());
            // Its quiet hours may have begun since its turn, before the clock of the node showed that.
            let (before, after) = (
                self.now.0.saturating_sub(skew + SLACK_MS),
                self.now.0 + skew,
            );
            let may_have_it = |at_ms| campaign.hold(name, profile.as_ref(), at_ms).is_none();
            if may_have_it(before) && may_have_it(after) {
                owed.push(device);
            }
        }
        Ok(owed)
    }

    /// How long until another device has its turn, if any has within some minutes.
    pub fn next_turn_ms(&self, reader: &dyn Reader) -> Option<u64> {
        const SOON_MS: u64 = 10 * 60_000;
        let mut next: Option<u64> = None;
        for push in self.model.campaigns_under_way() {
            let id = self.model.pushes[push].id?;
            let context = context(reader, self.now);
            let (_, campaign) = campaigns::standing(&context, &app(), id).ok()?;
            let Some(campaign) = campaign.filter(Campaign::goes_on) else {
                continue;
            };
            for device in self.model.owed_campaign(push) {
                if self.model.pushes[push].got.contains_key(&device) {
                    continue;
                }
                let name = self.clients[device].plan.name.as_str();
                let key = Key::new(Table::Device, name);
                let (row, _) = context.row(&Scope::App(app()), &key).ok()?;
                let profile = row.and_then(|row| Profile::decode(&row.value).ok());
                let from = self.now.0.saturating_sub(self.model.skew_ms() + SLACK_MS);
                if let Some(
                    Hold::NotBefore(Time(at)) | Hold::Pace(Time(at)) | Hold::QuietHours(Time(at)),
                ) = campaign.hold(name, profile.as_ref(), from)
                {
                    let left = (at + 1).saturating_sub(from);
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
            }
        }
        next.filter(|left| *left <= SOON_MS)
    }
}

/// The number of the push that a message is.
fn number_of(topic: &str, payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    let number = text.strip_prefix('p').filter(|_| topic == "push/in")?;
    number.trim_end().parse().ok()
}
