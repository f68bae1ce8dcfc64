#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Boots a guest with virtual GPIO controllers, runs a command in it, and ends with the
command's exit status. Without a command the terminal is the guest's console.

Starts the devices (vgpio), the guest (QEMU or User-Mode Linux), and serves what the guest
asks of the host over its second serial port, see tools/testing/guest/host.sh. Terminates
guest and devices when it exits.
"""

import argparse
import contextlib
import os
import platform
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import monitor

VIRTIO_ID_GPIO = 41
PROBE_SECONDS = 30
POWER_OFF_SECONDS = 20


# What is known of the architectures of guests, see machine_of().
ARCHES = Path(__file__).parent / "arch"


class Failure(Exception):
    """The one line that tells what went wrong, other than in the command itself."""


class Device:
    """The vgpio daemon, with one device for each controller of the guest."""

    def __init__(self, vgpio, run, control, specs, machine):
        self.vgpio = vgpio
        self.machine = machine
        self.control = control
        self.sockets = [run / f"gpio{n}.sock" for n in range(len(specs))]
        self.log = run / "vgpio.log"
        self.labels = []
        self.args = [vgpio, "--control", control, "serve"]
        for path, spec in zip(self.sockets, specs):
            self.args += ["--device", f"socket={path},{spec}"]
            self.labels.append(dict(word.partition("=")[::2] for word in spec.split(",")).get("label"))
        self.daemon = None
        self.jobs = {}

    def start(self):
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if not self.daemon.stdout.readline():
            self.daemon.wait()
            lines = self.log.read_text(errors="replace").strip().splitlines()
            raise Failure(f"vgpio did not start: {lines[-1] if lines else 'it said nothing'}")

    def kill(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def stop(self):
        for job in self.jobs.values():
            job.kill()
        if self.daemon:
            self.daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(5)
        self.kill()

    def request(self, words):
        """What the guest may ask for; nothing but vgpio is ever run, and without a shell."""
        if not self.sockets:
            return "this guest was started without a GPIO device\n", 2
        match words:
            case ["vgpio", *args]:
                return self.finish(self.client(args))
            case ["start", name, "vgpio", *args] if name not in self.jobs:
                self.jobs[name] = self.client(args)
                if "--banner" in args:
                    # So that nothing happens before it watches.
                    return self.jobs[name].stdout.readline().decode(), 0
                return "", 0
            case ["finish", name] if name in self.jobs:
                return self.finish(self.jobs.pop(name))
            case ["stop", name] if name in self.jobs:
                self.jobs[name].send_signal(signal.SIGINT)
                return self.finish(self.jobs.pop(name))
            case ["vgpio-kill"]:
                self.kill()
                return "", 0
            case ["vgpio-start"] if not self.daemon:
                self.start()
                return "", 0
            case ["vgpio-pause" | "vgpio-resume" as word] if self.daemon:
                self.daemon.send_signal(signal.SIGSTOP if word == "vgpio-pause" else signal.SIGCONT)
                return "", 0
            case ["vgpio-restart"]:
                self.kill()
                self.start()
                return "", 0
            case ["unplug", label] if label in self.labels:
                self.machine.unplug(f"gpio{self.labels.index(label)}")
                return "", 0
            case ["plug", label] if label in self.labels:
                n = self.labels.index(label)
                self.machine.plug(f"gpio{n}", f"port{n}", self.sockets[n])
                return "", 0
            case ["wake", milliseconds] if milliseconds.isdecimal():
                threading.Timer(int(milliseconds) / 1000, self.machine.wake).start()
                return "", 0
        return f"not a request: {shlex.join(words)}\n", 2

    def client(self, args):
        return subprocess.Popen(
            [self.vgpio, "--control", self.control, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Not to read more than one line of it at a time.
            bufsize=0,
        )

    @staticmethod
    def finish(job):
        try:
            output, _ = job.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            job.kill()
            output, _ = job.communicate()
            return f"{output.decode()}no end after 60 s\n", 124
        # As a shell has it: killed by a signal is 128 and its number.
        return output.decode(), job.returncode if job.returncode >= 0 else 128 - job.returncode


class Channel:
    """Our end of the guest's second serial port."""

    def __init__(self, end, device, command):
        self.end = end
        self.device = device
        self.command = command
        self.pending = b""
        self.status = None

    def serve(self):
        """Handles what has arrived; False once the guest has closed its end."""
        try:
            data = self.end.recv(65536)
        except ConnectionError:
            data = b""
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.line(line.decode(errors="replace").rstrip("\r"))
        return bool(data)

    def line(self, line):
        if line.startswith("> "):
            print(line[2:], flush=True)
            return
        try:
            output, status = self.request(shlex.split(line))
        except (ValueError, Failure, monitor.Refused, OSError) as err:
            output, status = f"{err}\n", 2
        answer = [f"| {text}\n" for text in output.splitlines()] + [f"= {status}\n"]
        with contextlib.suppress(OSError):
            self.end.sendall("".join(answer).encode())

    def request(self, words):
        """What init asks for; the rest is the device's business."""
        match words:
            case ["command"]:
                return "".join(f"{word}\n" for word in self.command), 0
            case ["exit", status] if status.isdecimal():
                self.status = int(status)
                return "", 0
        return self.device.request(words)


def machine_of(arch):
    """The file of an architecture, lines of NAME=VALUE, as a dictionary."""
    lines = (ARCHES / arch).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def device_tree(machine, overlays, run):
    """The device tree of a machine of QEMU, with overlays applied."""
    steps = [
        [*machine, "-machine", f"dumpdtb={run}/machine.dtb"],
        ["fdtoverlay", "-i", run / "machine.dtb", "-o", run / "guest.dtb", *overlays],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"no device tree: {done.stderr.strip()}")
    return run / "guest.dtb"


def qemu(args, device, known, accel, run):
    """The command line of a QEMU guest; the channel is to be its descriptor 3, the monitor 4."""
    memory = f"{args.memory}M"
    command = [
        known["qemu"], "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-M", known[args.transport], "-m", memory, "-smp", str(args.smp),
    ]  # fmt: skip
    cpu = "host" if accel == "kvm" else known.get("cpu")
    if cpu:
        command += ["-cpu", cpu]
    if args.overlay:
        command += ["-dtb", device_tree(command, args.overlay, run)]
    command += [
        "-accel", f"tcg,thread={args.tcg_threads}" if accel == "tcg" else accel, "-machine", "memory-backend=memory",
        # vhost-user: the device reads and writes the guest's memory.
        "-object", f"memory-backend-memfd,id=memory,size={memory},share=on",
        "-kernel", f"{args.build}/{known['image']}", "-initrd", str(args.initrd),
        "-chardev", "socket,id=channel,fd=3",
        "-chardev", "socket,id=monitor,fd=4", "-mon", "chardev=monitor,mode=control",
    ]  # fmt: skip
    command += ["-chardev", f"stdio,id=console,signal=off,mux={'on' if args.interactive else 'off'}"]
    if args.interactive:
        command += ["-mon", "chardev=console,mode=readline"]
    command += ["-serial", "chardev:console"]
    command += f"-device {known['channel-device']},chardev=channel".split()
    # An IOMMU has to come before the devices behind it.
    command += args.emulator
    for n, path in enumerate(device.sockets):
        command += ["-chardev", f"socket,id=gpio{n},path={path}"]
        if args.transport == "pci":
            gpio = f"vhost-user-gpio-pci,id=gpio{n},chardev=gpio{n}"
            if "port" in known:
                # Behind a port of its own each can be unplugged.
                command += ["-device", f"{known['port']},id=port{n},chassis={n + 1}"]
                gpio += f",bus=port{n}"
        else:
            gpio = f"vhost-user-gpio-device,id=gpio{n},chardev=gpio{n}"
        if "access-platform" in args.gpio[n]:
            gpio += ",iommu_platform=on"
        command += ["-device", gpio]
    if args.transport == "mmio":
        command += ["-global", "virtio-mmio.force-legacy=false"]
    append = [f"console={known['console']}", "panic=-1", f"CHANNEL={known['channel']}"]
    append += [known[name] for name in ("append", f"append-{args.transport}") if name in known]
    return [*command, "-append", " ".join([*append, *args.append])]


def uml(args, device, known, run):
    command = [f"{args.build}/{known['image']}", f"mem={args.memory}M", f"initrd={args.initrd}", f"uml_dir={run}/"]
    command += ["umid=guest", "panic=-1", f"CHANNEL={known['channel']}", "ssl1=fd:3", "con=null", "con0=fd:0,fd:1"]
    for path in device.sockets:
        command.append(f"virtio_uml.device={path}:{VIRTIO_ID_GPIO}")
    return [*command, *args.append]


def accelerator(args):
    """`kvm` where it really boots this kernel, else `tcg`; found out once per host boot."""
    if args.accel != "auto":
        return args.accel
    if args.arch != platform.machine() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = args.cache / f"accel-{boot_id}"
    if not known.exists():
        print("finding out whether KVM boots this kernel ...", file=sys.stderr)
        probe = [
            sys.executable, __file__, "--build", args.build, "--initrd", args.initrd, "--cache", args.cache,
            "--accel", "kvm", "--timeout", str(PROBE_SECONDS), "--log", os.devnull, "--", "true",
        ]  # fmt: skip
        done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        known.write_text("tcg" if done.returncode else "kvm")
    return known.read_text()


@contextlib.contextmanager
def terminal_restored():
    """A guest on our terminal puts it into raw mode, and may not live to restore it."""
    if not sys.stdin.isatty():
        yield
        return
    saved = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def wait_for(guest, channel, log, seconds):
    """Serves the guest until it has ended; kills it when its time is over."""
    selector = selectors.DefaultSelector()
    selector.register(channel.end, selectors.EVENT_READ, channel.serve)
    if log:
        selector.register(guest.stdout, selectors.EVENT_READ, lambda: log.write(guest.stdout.read1()))
    exited = os.pidfd_open(guest.pid)
    selector.register(exited, selectors.EVENT_READ, lambda: True)
    deadline = time.monotonic() + seconds if seconds else None
    try:
        while guest.poll() is None:
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                raise Failure(f"the guest did not end within {seconds:g} s")
            for key, _ in selector.select(rest):
                if not key.data():
                    selector.unregister(key.fileobj)
            if channel.status is not None and (deadline is None or deadline > time.monotonic() + POWER_OFF_SECONDS):
                deadline, seconds = time.monotonic() + POWER_OFF_SECONDS, POWER_OFF_SECONDS
        # What it said last.
        channel.end.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while channel.serve():
                pass
        if log:
            log.write(guest.stdout.read())
    finally:
        os.close(exited)
        if guest.poll() is None:
            guest.kill()
        guest.wait()


def boot(args, run):
    control = args.control or run / "control.sock"
    # UML closes no descriptors and may be given any; 3 and 4 are what the command lines say.
    ours, theirs = socket.socketpair()
    steering, steered = socket.socketpair()
    if args.arch == "um":
        machine = monitor.Uml(run / "guest" / "mconsole", VIRTIO_ID_GPIO)
    else:
        machine = monitor.Qemu(steering, ours)
    device = Device(args.vgpio, run, control, args.gpio, machine)
    known = machine_of(args.arch)
    if args.arch == "um":
        command = uml(args, device, known, run)
    else:
        command = qemu(args, device, known, accelerator(args), run)
    try:
        if args.gpio:
            device.start()
        with contextlib.ExitStack() as stack:
            streams = {}
            log = None
            if not args.interactive:
                log = stack.enter_context(open(args.log, "wb", buffering=0))
                # Pipes, as UML wants to poll its console.
                streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            given = [theirs.fileno(), steered.fileno()]
            guest = subprocess.Popen(
                [sys.executable, "-c", EXEC_WITH_CHANNELS, *map(str, [*given, *command])],
                pass_fds=given,
                **streams,
            )
            theirs.close()
            steered.close()
            machine.guest = guest
            channel = Channel(ours, device, args.command)
            wait_for(guest, channel, log, args.timeout)
    finally:
        device.stop()
    if args.interactive:
        if guest.returncode:
            raise Failure(f"the guest ended with status {guest.returncode}: {command[0]} says why above")
        return 0
    if channel.status is None:
        raise Failure(f"the guest ended before the command did, its kernel log is {args.log}")
    return channel.status


# Makes the channels descriptors 3 and 4 and becomes the guest. They may be that already, in
# any order.
EXEC_WITH_CHANNELS = """
import os, sys
channel, monitor = (os.dup(int(arg)) for arg in sys.argv[1:3])
for mine, known in (channel, 3), (monitor, 4):
    os.dup2(mine, known)
    os.set_inheritable(known, True)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--arch", choices=[file.name for file in ARCHES.iterdir()], default="x86_64")
    parser.add_argument("--transport", choices=["pci", "mmio"], default="pci")
    parser.add_argument("--build", type=Path, required=True, help="kernel build directory")
    parser.add_argument("--initrd", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="directory that caches which accelerator works")
    parser.add_argument("--vgpio", type=Path, help="the vgpio program")
    parser.add_argument("--gpio", action="append", default=[], metavar="SPEC",
                        help="a controller, as in 'vgpio serve --device' without the socket; repeatable")  # fmt: skip
    parser.add_argument("--platform", action="store_true",
                        help="devices of QEMU use VIRTIO_F_ACCESS_PLATFORM")  # fmt: skip
    parser.add_argument("--control", type=Path, help="control socket of vgpio")
    parser.add_argument("--smp", type=int, default=2)
    parser.add_argument("--memory", type=int, default=256, help="memory of the guest in MiB")
    parser.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto")
    parser.add_argument("--tcg-threads", choices=["single", "multi"], default="multi",
                        help="one thread for all emulated processors, or one each")  # fmt: skip
    parser.add_argument("--emulator", action="append", default=[], metavar="ARG",
                        help="argument of QEMU, given as --emulator=ARG; repeatable")  # fmt: skip
    parser.add_argument("--overlay", action="append", default=[], metavar="DTBO",
                        help="overlay for the device tree of a QEMU machine; repeatable")  # fmt: skip
    parser.add_argument("--append", action="append", default=[], help="kernel parameter; repeatable")
    parser.add_argument("--timeout", type=float, default=0, help="timeout in seconds; none by default")
    parser.add_argument("--log", type=Path, default=os.devnull, help="file for the kernel's log")
    parser.add_argument("command", nargs="*", help="command to run in the guest")
    args = parser.parse_args()
    if args.platform:
        # QEMU 10 cannot start a device behind an IOMMU with a queue that the driver does not use.
        args.gpio = [spec if "irq=off" in spec else f"{spec},access-platform" for spec in args.gpio]
    args.interactive = not args.command
    if args.interactive:
        # The kernel's messages are a `dmesg` away.
        args.append.insert(0, "quiet")
    if args.gpio and not args.vgpio:
        parser.error("--gpio needs --vgpio")
    return args


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # In the background of a script it is ignored, also by the jobs that it is to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Path(tempfile.mkdtemp(prefix="gpio-virtio-"))
    try:
        with terminal_restored():
            return boot(args, run)
    except KeyboardInterrupt:
        return 130
    except Failure as err:
        print(f"error: {err}", file=sys.stderr)
        return 125
    finally:
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
