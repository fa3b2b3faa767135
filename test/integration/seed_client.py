"""Drives the public API as a client of the original, string-based service does.

Usage: seed_client.py ADDRESS ADDRESS ADDRESS; prints what it observed as one JSON object. The messages are built from
descriptors that hold nothing but the fields of the original service: six calls, keys and values as strings.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
BOOL = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL
ONE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
MANY = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

MESSAGES = {
    "PutRequest": [("key", STRING, ONE), ("value", STRING, ONE)],
    "PutResponse": [("old_value", STRING, ONE)],
    "GetRequest": [("key", STRING, ONE)],
    "GetResponse": [("value", STRING, ONE)],
    "DeleteRequest": [("key", STRING, ONE)],
    "DeleteResponse": [],
    "ListKeysRequest": [],
    "ListKeysResponse": [("keys", STRING, MANY)],
    "BackupRequest": [],
    "BackupResponse": [("success", BOOL, ONE), ("message", STRING, ONE)],
    "PingRequest": [],
    "PingResponse": [("message", STRING, ONE)],
}
CALLS = ["Put", "Get", "Delete", "ListKeys", "Backup", "Ping"]
TIMEOUT_S = 20


def message_classes():
    file = descriptor_pb2.FileDescriptorProto(name="seed.proto", package="kvstore", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, label) in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kvstore.{name}")) for name in MESSAGES
    }


CLASSES = message_classes()


class Stub:
    """The six calls on one node."""

    def __init__(self, address):
        channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self.calls = {
            name: channel.unary_unary(
                f"/kvstore.KeyValueStore/{name}",
                request_serializer=CLASSES[f"{name}Request"].SerializeToString,
                response_deserializer=CLASSES[f"{name}Response"].FromString,
            )
            for name in CALLS
        }

    def __call__(self, name, **fields):
        return self.calls[name](CLASSES[f"{name}Request"](**fields), timeout=TIMEOUT_S)

    def code(self, name, **fields):
        """The status of a call that is expected to fail."""
        try:
            self(name, **fields)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name


def observe(addresses):
    first, second, third = (Stub(address) for address in addresses)
    seen = {
        "ping": [stub("Ping").message for stub in (first, second, third)],
        "put_new": first("Put", key="seed/a", value="one").old_value,
        "put_again": first("Put", key="seed/a", value="two").old_value,
        "get_everywhere": [stub("Get", key="seed/a").value for stub in (first, second, third)],
        "get_missing": second("Get", key="seed/missing").value,
        "overwritten_elsewhere": third("Put", key="seed/a", value="drei \u00fc \u65e5").old_value,
        "read_back": first("Get", key="seed/a").value,
    }
    for number in range(20):
        (first, second, third)[number % 3]("Put", key=f"seed/list/{number:02}", value=str(number))
    seen["list_everywhere"] = [list(stub("ListKeys").keys) for stub in (first, second, third)]
    second("Delete", key="seed/a")
    third("Delete", key="seed/never-there")
    seen["get_deleted"] = [stub("Get", key="seed/a").value for stub in (first, second, third)]
    backup = first("Backup")
    seen["backup"] = {"success": backup.success, "message": backup.message}
    seen["empty_key"] = first.code("Put", key="", value="x")
    return seen


if __name__ == "__main__":
    json.dump(observe(sys.argv[1:4]), sys.stdout)
