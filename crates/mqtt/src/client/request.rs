//! SUBSCRIBE and UNSUBSCRIBE.

use super::{Client, Phase, Request, RequestError};
use crate::{
    Packet, PacketId, Properties, Subscribe, SubscribeFilters, SubscriptionOptions, Unsubscribe,
    UnsubscribeFilters, topic,
};

impl Client {
    /// Subscribes. The answer is [`super::Event::Subscribed`] with the packet identifier that this returns; a request
    /// that the connection does not survive gets none.
    ///
    /// `properties`: subscription identifier and user properties, ignored before 5.0, as are all options but QoS.
    pub fn subscribe(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
        properties: Properties<'_>,
        now_ms: u64,
    ) -> Result<PacketId, RequestError> {
        let mut list = Vec::new();
        for (filter, options) in filters {
            self.check_filter(filter)?;
            let is_shared = filter.starts_with("$share/");
            if is_shared && options.no_local && self.options.version.is_v5() {
                let rule = "must not have the option \"no local\" if it is shared [MQTT-3.8.3-4]";
                return Err(RequestError::invalid("topic filter", filter, rule));
            }
            SubscribeFilters::write(filter, *options, &mut list);
        }
        if properties.subscription_ids().next().is_some() && !self.limits.subscription_ids {
            return Err(RequestError::unsupported(
                "subscription identifiers",
                "[MQTT-3.2.2-3], section 3.2.2.3.12",
            ));
        }
        let request = Request::Subscribe {
            filters: filters.len(),
        };
        self.request(request, now_ms, |packet_id| {
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters: SubscribeFilters::trusted(&list),
            })
        })
    }

    /// Unsubscribes. The answer is [`super::Event::Unsubscribed`] with the packet identifier that this returns; a
    /// request that the connection does not survive gets none.
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
        now_ms: u64,
    ) -> Result<PacketId, RequestError> {
        let mut list = Vec::new();
        for filter in filters {
            check_syntax(filter)?;
            UnsubscribeFilters::write(filter, &mut list);
        }
        let request = Request::Unsubscribe {
            filters: filters.len(),
        };
        self.request(request, now_ms, |packet_id| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters: UnsubscribeFilters::trusted(&list),
            })
        })
    }

    fn request<'a>(
        &mut self,
        request: Request,
        now_ms: u64,
        packet: impl FnOnce(PacketId) -> Packet<'a>,
    ) -> Result<PacketId, RequestError> {
        let (Request::Subscribe { filters } | Request::Unsubscribe { filters }) = request;
        if self.phase != Phase::Connected {
            return Err(RequestError::NotConnected);
        }
        if filters == 0 {
            let rule = "must be at least one [MQTT-3.8.3-2] [MQTT-3.10.3-2]";
            return Err(RequestError::invalid("topic filters", "", rule));
        }
        if self.output.len() > self.options.maximum_output_bytes {
            return Err(RequestError::Busy);
        }
        let packet_id = self.outbound.acquire().ok_or(RequestError::Busy)?;
        let before = self.output.len();
        self.send(packet(packet_id), now_ms);
        if let Err(error) = self.check_packet_size(self.output.len() - before) {
            self.output.truncate(before);
            self.outbound.release(packet_id);
            return Err(error);
        }
        self.requests.insert(packet_id, request);
        Ok(packet_id)
    }

    fn check_filter(&self, filter: &str) -> Result<(), RequestError> {
        check_syntax(filter)?;
        if !self.limits.wildcard_subscriptions && topic::has_wildcard(filter) {
            return Err(RequestError::unsupported(
                "wildcard subscriptions",
                "section 3.2.2.3.11",
            ));
        }
        if !self.limits.shared_subscriptions && filter.starts_with("$share/") {
            return Err(RequestError::unsupported(
                "shared subscriptions",
                "section 3.2.2.3.13",
            ));
        }
        Ok(())
    }
}

fn check_syntax(filter: &str) -> Result<(), RequestError> {
    topic::validate_filter(filter)
        .map_err(|error| RequestError::invalid("topic filter", filter, error.rule()))
}
