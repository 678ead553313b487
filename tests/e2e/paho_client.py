"""An MQTT client on Eclipse Paho, driven by JSON lines.

One argument: a JSON object with host, port, version (3, 4 or 5), transport ("tcp" or "websockets"), and ca (a file, for TLS).
A request is {"id": 1, "do": "publish", ...}; its answer {"id": 1, "ok": {...}} or {"id": 1, "error": "..."} comes when the
exchange with the server is over. What happens by itself: {"message": {...}}, {"connected": {...}}, {"disconnected": {...}}.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

SETTINGS = json.loads(sys.argv[1])
V5 = SETTINGS["version"] == 5
OUTPUT = threading.Lock()


def say(**document):
    with OUTPUT:
        print(json.dumps(document), flush=True)


def number(reason):
    return reason if isinstance(reason, int) else reason.value


def properties(packet_type, **values):
    """The properties that have a value, or None for a version that has no properties."""
    if not V5:
        return None
    chosen = Properties(packet_type)
    for name, value in values.items():
        if value is not None:
            setattr(chosen, name, value)
    return chosen


def user_properties(packet_properties):
    return [list(pair) for pair in getattr(packet_properties, "UserProperty", [])] if packet_properties else []


class Client:
    def __init__(self):
        self.client = None
        self.connect_id = None
        self.waiting = {}
        self.early = {}
        self.lock = threading.Lock()

    def connect(self, id, client_id, clean=True, keep_alive=60, expiry=None, username=None, password=None, will=None,
                reconnect=False, receive_maximum=None):
        clean_session = {} if V5 else {"clean_session": clean}
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=SETTINGS["version"],
                             transport=SETTINGS["transport"], reconnect_on_failure=reconnect, **clean_session)
        client.max_queued_messages_set(0)
        client.reconnect_delay_set(min_delay=0.05, max_delay=0.2)
        if SETTINGS["transport"] == "websockets":
            client.ws_set_options(path="/mqtt")
        if SETTINGS.get("ca"):
            client.tls_set(ca_certs=SETTINGS["ca"])
        if username is not None:
            client.username_pw_set(username, password)
        if will:
            client.will_set(will["topic"], will["payload"], will.get("qos", 0), will.get("retain", False),
                            properties(PacketTypes.WILLMESSAGE, WillDelayInterval=will.get("delay")))
        client.on_connect = self.on_connect
        client.on_connect_fail = lambda *_: self.fail_connect("no connection") if not reconnect else None
        client.on_disconnect = self.on_disconnect
        client.on_message = self.on_message
        client.on_publish = lambda c, u, mid, reason, p: self.finish(mid, code=number(reason))
        client.on_subscribe = lambda c, u, mid, reasons, p: self.finish(mid, codes=[number(r) for r in reasons])
        client.on_unsubscribe = lambda c, u, mid, reasons, p: self.finish(mid, codes=[number(r) for r in reasons])
        self.client = client
        self.connect_id = id
        more = {}
        if V5:
            more["clean_start"] = clean
            more["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry, ReceiveMaximum=receive_maximum)
        client.connect_async(SETTINGS["host"], SETTINGS["port"], keep_alive, **more)
        client.loop_start()

    def on_connect(self, client, userdata, flags, reason, properties):
        answer = {"session_present": flags.session_present, "code": number(reason)}
        if properties is not None:
            answer["assigned"] = getattr(properties, "AssignedClientIdentifier", None)
            answer["receive_maximum"] = getattr(properties, "ReceiveMaximum", None)
        id, self.connect_id = self.connect_id, None
        if id is not None:
            say(id=id, ok=answer)
        say(connected=answer)

    def fail_connect(self, why):
        id, self.connect_id = self.connect_id, None
        if id is not None:
            say(id=id, error=why)

    def on_disconnect(self, client, userdata, flags, reason, properties):
        self.fail_connect(f"disconnected: {reason}")
        say(disconnected={"code": number(reason), "by_server": flags.is_disconnect_packet_from_server})

    def on_message(self, client, userdata, message):
        say(message={"topic": message.topic, "payload": message.payload.decode(), "qos": message.qos,
                     "retain": bool(message.retain), "dup": bool(message.dup),
                     "user": user_properties(message.properties)})

    def subscribe(self, id, filter, qos=0, no_local=False, retain_handling=0):
        if V5:
            options = SubscribeOptions(qos=qos, noLocal=no_local, retainHandling=retain_handling)
            self.await_ack(id, self.client.subscribe(filter, options=options)[1])
        else:
            self.await_ack(id, self.client.subscribe(filter, qos)[1])

    def unsubscribe(self, id, filter):
        self.await_ack(id, self.client.unsubscribe(filter)[1])

    def publish(self, id, topic, payload, qos=0, retain=False, expiry=None, user=None):
        pairs = [tuple(pair) for pair in user] if user else None
        chosen = properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry, UserProperty=pairs)
        self.await_ack(id, self.client.publish(topic, payload, qos, retain, chosen).mid)

    def disconnect(self, id):
        self.client.disconnect()
        self.client.loop_stop()
        say(id=id, ok={})

    # An acknowledgement may be here before the call that caused it has told its packet identifier.
    def await_ack(self, id, mid):
        with self.lock:
            if mid in self.early:
                say(id=id, ok=self.early.pop(mid))
            else:
                self.waiting[mid] = id

    def finish(self, mid, **answer):
        with self.lock:
            if mid in self.waiting:
                say(id=self.waiting.pop(mid), ok=answer)
            else:
                self.early[mid] = answer


def main():
    client = Client()
    for line in sys.stdin:
        request = json.loads(line)
        id = request["id"]
        try:
            getattr(client, request.pop("do"))(**request)
        except Exception as error:
            say(id=id, error=f"{type(error).__name__}: {error}")


main()
