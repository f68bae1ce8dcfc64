// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::{self, Client, Style, Watching};
use crate::config;
use crate::control::Request;
use crate::duration;
use crate::plot;
use crate::record;
use crate::replay;
use crate::serve;
use crate::socket;
use crate::watch::Topic;

const LINES: &str = "Lines, by offset or name; all if none is given";

/// A vhost-user GPIO device for virtual machines: read, drive and watch a guest's GPIO lines from
/// the host.
#[derive(Parser)]
#[command(name = "vgpio", version, max_term_width = 100)]
pub struct Cli {
    /// The daemon's control socket [default: $VGPIO_CONTROL, $XDG_RUNTIME_DIR/vgpio.sock, or
    /// /tmp/vgpio-UID/control.sock]
    #[arg(long, value_name = "PATH", global = true)]
    control: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// The device that a command applies to.
#[derive(Args, Clone)]
struct Target {
    /// The device, by label or index; required if the lines are ambiguous
    #[arg(
        id = "target",
        short = 'd',
        long = "device",
        value_name = "LABEL|INDEX"
    )]
    device: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve devices to virtual machines, until SIGTERM or SIGINT
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// A device: socket=PATH or vduse=NAME, lines=N and more, separated by commas; may be
        /// repeated
        #[arg(short = 'd', long = "device", value_name = "KEY=VALUE,...")]
        devices: Vec<config::Device>,
        /// A TOML file with a table `device` of the same keys for each device
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// List the devices
    Detect {
        /// Print JSON, an array with one object per device
        #[arg(long)]
        json: bool,
    },
    /// Show the configuration and the levels of lines
    Info {
        #[command(flatten)]
        target: Target,
        /// Print JSON, an array with one object per line
        #[arg(long)]
        json: bool,
        #[arg(value_name = "LINE", help = LINES)]
        lines: Vec<String>,
    },
    /// Read the levels on the wire, driven by the guest or by the host
    Get {
        #[command(flatten)]
        target: Target,
        /// Print 0 and 1 only
        #[arg(long)]
        numeric: bool,
        /// Do not quote line names
        #[arg(long)]
        unquoted: bool,
        /// Lines, by offset or name
        #[arg(value_name = "LINE", required = true)]
        lines: Vec<String>,
    },
    /// Set the host's levels: what the guest reads from its inputs
    ///
    /// The level of a line that the guest drives takes effect when the guest stops driving it.
    /// Several lines are set in order, with one interrupt.
    Set {
        #[command(flatten)]
        target: Target,
        /// Lines with 0, 1, inactive or active
        #[arg(value_name = "LINE=VALUE", required = true, value_parser = line_value)]
        values: Vec<(String, bool)>,
    },
    /// Invert the host's levels
    Toggle {
        #[command(flatten)]
        target: Target,
        /// Number of inversions
        #[arg(short, long, default_value_t = 1)]
        count: u64,
        /// Time between two inversions, like 5ms or 200us
        #[arg(short, long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
        interval: Duration,
        /// Lines, by offset or name
        #[arg(value_name = "LINE", required = true)]
        lines: Vec<String>,
    },
    /// Invert the host's levels repeatedly, as fast as the guest handles the interrupts
    ///
    /// Inverts each line as soon as the guest has unmasked its interrupt, so that edges do not merge.
    /// Returns at once.
    Swing {
        #[command(flatten)]
        target: Target,
        /// Number of inversions of each line
        #[arg(short, long, default_value_t = 1)]
        count: u64,
        /// Lines, by offset or name
        #[arg(value_name = "LINE", required = true)]
        lines: Vec<String>,
    },
    /// Connect an output of a guest to another line, of the same device or of another one
    ///
    /// The host's level of TO becomes that of FROM, and follows what the guest drives there. A line
    /// has one such wire; without TO the wire is removed, and the line at its end is inactive.
    Wire {
        #[command(flatten)]
        target: Target,
        /// The device of TO, by label or index [default: that of FROM, or the only one that has a
        /// line of this name]
        #[arg(long, value_name = "LABEL|INDEX", requires = "to")]
        to_device: Option<String>,
        /// The line that the guest drives, by offset or name
        from: String,
        /// The line that follows
        to: Option<String>,
    },
    /// Print or set the content of the EEPROM of a device
    ///
    /// The device has one if it was given i2c-eeprom=SDA:SCL. It is a 24C02, 256 bytes at the
    /// address 0x50.
    Eeprom {
        #[command(flatten)]
        target: Target,
        /// Set bytes, given as hexadecimal digits, from this offset on
        #[arg(value_name = "OFFSET=HEX", value_parser = eeprom_bytes)]
        program: Option<(u16, Vec<u8>)>,
    },
    /// Watch edges on the wire, by the guest and by the host
    ///
    /// Prints time (monotonic), edge, line with its level, and its origin. `driven` means that the
    /// guest starts to drive the level that the line already has.
    Mon {
        #[command(flatten)]
        watch: Watch,
        /// Only these edges
        #[arg(short, long, default_value = "both")]
        edges: Edges,
        /// Print JSON, an object per edge
        #[arg(long)]
        json: bool,
    },
    /// Watch the guest configure lines: direction, interrupt type, and masking
    Notify {
        #[command(flatten)]
        watch: Watch,
        /// Print JSON, an object per change
        #[arg(long)]
        json: bool,
    },
    /// Record all changes of lines as a VCD file
    ///
    /// Ends with SIGINT or SIGTERM. GTKWave, PulseView and sigrok-cli open the file; NAME is the
    /// level on the wire, NAME.host that of the host, NAME.guest is 1 while the guest drives the line.
    Record {
        /// The file, which is replaced
        file: PathBuf,
        #[command(flatten)]
        watch: Watch,
    },
    /// Set the host's levels as in a VCD file, at the same times
    ///
    /// Of a recording by vgpio the levels NAME.host, of other files all signals of one bit with the
    /// name or the offset of a line.
    Replay {
        #[command(flatten)]
        target: Target,
        /// Replay this many times as fast
        #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
        speed: f64,
        file: PathBuf,
        #[arg(value_name = "LINE", help = LINES)]
        lines: Vec<String>,
    },
    /// Draw a VCD file as a timing diagram
    Plot {
        /// The diagram, in SVG
        #[arg(short, long, value_name = "SVG")]
        output: PathBuf,
        /// Begin at this time of the file, like 20ms
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        from: Option<Duration>,
        /// End at this time
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        to: Option<Duration>,
        /// Of a recording by vgpio, draw more than the levels on the wire
        #[arg(long)]
        all: bool,
        file: PathBuf,
        #[arg(value_name = "LINE", help = LINES)]
        lines: Vec<String>,
    },
    /// Serve a page with switches, buttons, LEDs and traces of lines, and print its address
    ///
    /// Only browsers of this machine that know the address are let in.
    #[cfg(feature = "board")]
    Board {
        /// The port on 127.0.0.1 [default: any]
        #[arg(short, long, default_value_t = 0, hide_default_value = true)]
        port: u16,
        /// A TOML file with a table `part` for each part of the board; without it the names of
        /// the lines tell what they are
        file: Option<PathBuf>,
    },
    /// Show counters: messages, notifications, interrupts, errors
    Stats {
        #[command(flatten)]
        target: Target,
        /// Reset the counters afterwards
        #[arg(long)]
        reset: bool,
        /// Print JSON, an object with one member per device
        #[arg(long)]
        json: bool,
    },
    /// Inject faults into a device
    Fault {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: Fault,
    },
    /// Close the connection to the virtual machine, as if the daemon had died
    ///
    /// A VDUSE device is unplugged and plugged in again.
    Disconnect {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Args)]
struct Watch {
    #[command(flatten)]
    target: Target,
    /// Exit after this number of events
    #[arg(short, long, value_name = "NUM")]
    num_events: Option<u64>,
    /// Exit after this time without an event, like 5s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    idle_timeout: Option<Duration>,
    /// Exit after this time, like 5s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Print a line when watching starts
    #[arg(long)]
    banner: bool,
    #[arg(value_name = "LINE", help = LINES)]
    lines: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Edges {
    Rising,
    Falling,
    Both,
}

#[derive(Subcommand)]
enum Fault {
    /// Add faults
    #[command(after_help = FAULT_HELP)]
    Set {
        #[arg(value_name = "KIND[=ARG][,FILTER=VALUE]...", required = true)]
        faults: Vec<String>,
    },
    /// List the active faults
    List,
    /// Remove faults, by the number that `list` shows, or all
    Clear { ids: Vec<u32> },
}

const SERVE_HELP: &str = "\
Device keys:
  socket=PATH       socket that the virtual machine connects to
  vduse=NAME        in place of socket: a device of this machine, a VDUSE device of this name
  lines=N           number of lines, 1 to 65535 (required)
  label=NAME        label of the device [default: vgpio0, vgpio1, ...]
  names=A:B::D      line names, colon-separated; empty or missing means unnamed
  names-file=FILE   line names, one per line
  values=0101...    the host's levels at the start [default: all 0]
  irq=off           do not offer interrupts
  i2c-eeprom=SDA:SCL  an EEPROM on the I2C bus of these two lines
  queue-size=N      maximum size of a ring, a power of two up to 1024 [default: 1024]
  irq-needs-input   refuse an interrupt on a line that is not an input
  strict            refuse all that the specification forbids to drivers
  access-platform   offer VIRTIO_F_ACCESS_PLATFORM (iommu_platform=on of QEMU)
  poll=TIME         look for further requests for this time before sleeping [default: off]
  host-line=FROM    a line that is one of the host: CHIP:LINE or a name; may be repeated, and be
                    followed by keys of that line: line=N, name=NAME, only=input|output,
                    bias=pull-up|pull-down|disabled, debounce=TIME

Prints \"ready\" when all sockets are open and all VDUSE devices are there. RUST_LOG=debug logs more.";

const FAULT_HELP: &str = "\
Faults of answers to requests:
  delay=TIME             answer later, without delaying other lines
  silent                 do not carry out, do not answer
  status=err|N           do not carry out, answer with this status
  value=N                answer with this value
  used-len=short|long|zero|N  claim a false length
  stale                  claim the right length, write nothing
  reorder[=N]            reverse the answers of a batch, or every N answers
  disconnect             end the connection (once, unless count= says otherwise)
Faults of event buffers:
  silent-events          never return them
  event-status=N         return interrupts with this status
  invalid-events         return every buffer at once, as if the interrupt were disabled
  hold-irq-buffer=TIME   return buffers of disabled interrupts later
  delay, silent, used-len, stale, disconnect with type=event
Faults of the device:
  deaf                   keep the state when the guest stops its rings; do not access stopped rings
Filters:
  type=get-line-names|get-direction|set-direction|get-value|set-value|set-irq-type|event
  line=LINE  count=N (only the next N)  probability=P (0 to 1)  seed=N

All matching faults apply together. Answers for one line always stay in order.";

impl std::str::FromStr for Edges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, false)
    }
}

pub(crate) fn line_value(text: &str) -> Result<(String, bool)> {
    let (line, value) = text.rsplit_once('=').unwrap_or((text, ""));
    let value = match value {
        "1" | "active" => true,
        "0" | "inactive" => false,
        _ => anyhow::bail!("use LINE=VALUE with 0, 1, inactive or active"),
    };
    ensure!(!line.is_empty(), "use LINE=VALUE with an offset or a name");
    Ok((line.to_owned(), value))
}

pub(crate) fn eeprom_bytes(text: &str) -> Result<(u16, Vec<u8>)> {
    let parse = || {
        let (offset, digits) = text.split_once('=')?;
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair| {
            let pair: &[u8; 2] = <&[u8] as TryInto<_>>::try_into(pair).ok()?;
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            Some((high? * 16 + low?) as u8)
        };
        let offset = match offset.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok()?,
            None => offset.parse().ok()?,
        };
        Some((offset, pairs.map(byte).collect::<Option<_>>()?))
    };
    parse().context("use OFFSET=HEX with two digits for each byte")
}

fn speed(text: &str) -> Result<f64> {
    let speed = text.parse().ok();
    let speed = speed.filter(|it: &f64| it.is_normal() && *it > 0.0);
    speed.context("use a positive number, like 0.5 or 10")
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<()> {
    let control = cli.control.unwrap_or_else(socket::default_control);
    let before = cli.target.device;
    // The device may be given before the command or after it.
    let device = |target: Target| target.device.or_else(|| before.clone());
    let connect = || Client::connect(&control);
    let mut out = std::io::stdout().lock();
    match cli.command {
        Command::Serve {
            mut devices,
            config,
        } => {
            ensure!(before.is_none(), "--device of serve goes after the command");
            if let Some(path) = config {
                devices.extend(config::read(&path)?);
            }
            drop(out);
            return serve::serve(&devices, &control);
        }
        Command::Detect { json } => client::detect(&mut connect()?, json, &mut out)?,
        Command::Info {
            target,
            json,
            lines,
        } => client::info(&mut connect()?, device(target), lines, json, &mut out)?,
        Command::Get {
            target,
            numeric,
            unquoted,
            lines,
        } => {
            let style = Style { numeric, unquoted };
            client::get(&mut connect()?, device(target), lines, style, &mut out)?;
        }
        Command::Set { target, values } => connect()?.order(&Request::Set {
            device: device(target),
            values,
        })?,
        Command::Toggle {
            target,
            count,
            interval,
            lines,
        } => connect()?.order(&Request::Toggle {
            device: device(target),
            lines,
            count,
            interval_us: u64::try_from(interval.as_micros()).unwrap_or(u64::MAX),
        })?,
        Command::Swing {
            target,
            count,
            lines,
        } => connect()?.order(&Request::Swing {
            device: device(target),
            lines,
            count,
        })?,
        Command::Wire {
            target,
            to_device,
            from,
            to,
        } => connect()?.order(&Request::Wire {
            device: device(target),
            from,
            to,
            to_device,
        })?,
        Command::Eeprom {
            target,
            program: None,
        } => client::eeprom(&mut connect()?, device(target), &mut out)?,
        Command::Eeprom { target, program } => connect()?.order(&Request::Eeprom {
            device: device(target),
            program,
        })?,
        Command::Mon { watch, edges, json } => {
            let edges = match edges {
                Edges::Rising => Some(true),
                Edges::Falling => Some(false),
                Edges::Both => None,
            };
            let device = device(watch.target.clone());
            let options = Watching {
                edges,
                ..watch.options(json)
            };
            let request = watch.request(device, Topic::Levels);
            client::watch(&mut connect()?, &request, options, &mut out)?;
        }
        Command::Notify { watch, json } => {
            let device = device(watch.target.clone());
            let options = watch.options(json);
            let request = watch.request(device, Topic::Setup);
            client::watch(&mut connect()?, &request, options, &mut out)?;
        }
        Command::Record { file, watch } => {
            let device = device(watch.target.clone());
            let options = watch.options(false);
            record::record(&control, device, watch.lines, options, &file, &mut out)?;
        }
        Command::Replay {
            target,
            speed,
            file,
            lines,
        } => {
            let device = device(target);
            replay::replay(&mut connect()?, &file, device.as_deref(), &lines, speed)?;
        }
        Command::Plot {
            output,
            from,
            to,
            all,
            file,
            lines,
        } => {
            let part = plot::Part {
                from,
                to,
                all,
                lines,
            };
            plot::plot(&file, &output, &part)?;
        }
        #[cfg(feature = "board")]
        Command::Board { port, file } => {
            crate::board::serve(control, file.as_deref(), port, &mut out)?;
        }
        Command::Stats {
            target,
            reset,
            json,
        } => client::stats(&mut connect()?, device(target), reset, json, &mut out)?,
        Command::Fault { target, command } => {
            let device = device(target);
            let mut client = connect()?;
            match command {
                Fault::Set { faults } => client.order(&Request::FaultSet { device, faults })?,
                Fault::List => client::fault_list(&mut client, device, &mut out)?,
                Fault::Clear { ids } => client.order(&Request::FaultClear { device, ids })?,
            }
        }
        Command::Disconnect { target } => connect()?.order(&Request::Disconnect {
            device: device(target),
        })?,
    }
    out.flush()?;
    Ok(())
}

impl Watch {
    fn options(&self, json: bool) -> Watching {
        Watching {
            events: self.num_events,
            idle: self.idle_timeout.filter(|time| !time.is_zero()),
            duration: self.duration,
            edges: None,
            banner: self.banner,
            json,
        }
    }

    fn request(self, device: Option<String>, topic: Topic) -> Request {
        Request::Watch {
            device,
            lines: self.lines,
            topic,
        }
    }
}
