# SPDX-License-Identifier: GPL-2.0
"""What a guest is told from outside: that a device comes or goes, and to wake up."""

import contextlib
import json
import signal
import socket
import struct
import time

UNPLUG_SECONDS = 30


class Refused(Exception):
    """The machine does not do what it was asked for."""


class Qemu:
    """A QEMU machine, by its monitor protocol (QMP) over `end`, and its second serial port."""

    def __init__(self, end, channel):
        self.channel = channel
        self.end = end
        self.end.settimeout(UNPLUG_SECONDS)
        self.messages = end.makefile("r")
        self.deleted = set()
        self.ready = False

    def execute(self, command, **arguments):
        if not self.ready:
            # The greeting, which waits for an answer.
            self.read()
            self.ready = True
            self.execute("qmp_capabilities")
        self.end.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            message = self.read()
            if "error" in message:
                raise Refused(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return

    def read(self):
        try:
            line = self.messages.readline()
        except OSError as err:
            raise Refused(f"the monitor: {err}") from err
        if not line:
            raise Refused("the machine has ended")
        message = json.loads(line)
        if message.get("event") == "DEVICE_DELETED" and "device" in message["data"]:
            self.deleted.add(message["data"]["device"])
        return message

    def unplug(self, name):
        """Asks the guest for the device and waits until it has let it go."""
        self.deleted.discard(name)
        self.execute("device_del", id=name)
        deadline = time.monotonic() + UNPLUG_SECONDS
        while name not in self.deleted:
            if time.monotonic() > deadline:
                raise Refused(f"the guest has not let go of {name}")
            self.read()
        # The next device gets a connection of its own.
        self.execute("chardev-remove", id=name)

    def plug(self, name, port, path):
        address = {"type": "unix", "data": {"path": str(path)}}
        self.execute(
            "chardev-add",
            id=name,
            backend={"type": "socket", "data": {"addr": address, "server": False}},
        )
        self.execute("device_add", driver="vhost-user-gpio-pci", id=name, chardev=name, bus=port)

    def wake(self):
        # A byte on the port, which the guest has made a source of wake-up.
        self.channel.sendall(b"\n")


class Uml:
    """User-Mode Linux, by its management console at `path`, and its signals."""

    MAGIC = 0xCAFEBABE
    VERSION = 2

    def __init__(self, path, virtio_id):
        self.path = path
        self.virtio_id = virtio_id
        self.guest = None

    def execute(self, command):
        data = command.encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.settimeout(UNPLUG_SECONDS)
            # A name of the kernel's choice, for the answer.
            end.bind("")
            end.sendto(struct.pack("=III512s", self.MAGIC, self.VERSION, len(data), data), str(self.path))
            error, more, length = True, True, 0
            text = b""
            while more:
                answer = end.recv(12 + 512)
                error, more, length = struct.unpack_from("=III", answer)
                text += answer[12 : 12 + length]
        if error:
            raise Refused(f"{command}: {text.decode(errors='replace').strip()}")

    def unplug(self, _name):
        raise Refused("User-Mode Linux lets nothing go: disconnect the device")

    def plug(self, _name, _port, path):
        self.execute(f"config virtio_uml.device={path}:{self.virtio_id}")

    def wake(self):
        with contextlib.suppress(ProcessLookupError):
            self.guest.send_signal(signal.SIGUSR1)
