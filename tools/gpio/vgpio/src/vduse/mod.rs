// SPDX-License-Identifier: GPL-2.0-only

//! The VDUSE side: a device for the driver of this machine, without a virtual machine.
//!
//! The kernel has the device, we answer for it: to its messages, and to the notifications of the
//! driver. It does so on a thread per device, as the commands that put a device on the bus and take
//! it away come back only when the driver has been answered.
//!
//! The kernel keeps a device, and the driver bound to it, when the process ends that has made it.
//! What such a device still had to do for the driver is lost, so that the next process of that name
//! cannot continue. It takes the device away, as if it were unplugged, and makes it again.

mod bus;
mod kernel;
mod session;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use log::{debug, error, warn};
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;

use crate::device::Device;
use kernel::{Control, DeviceFile};
use session::Session;

/// How long a file may take to get the permissions that udev gives it.
const PATIENCE: Duration = Duration::from_secs(2);

/// For how many seconds the kernel waits for an answer, within locks, when a process is gone.
const MESSAGE_TIMEOUT: &str = "5";

/// What a device on the bus has to be told.
enum Order {
    /// To be unplugged and plugged in again.
    Replug,
    End,
}

/// A device that is on the bus, or comes back to it, until this is dropped.
pub struct Served {
    orders: Sender<Order>,
    keeper: Option<JoinHandle<()>>,
}

impl Served {
    /// Puts a device on the bus.
    pub fn new(device: &Arc<Device>, name: &str) -> Result<Self> {
        let (orders, received) = mpsc::channel();
        let port = Arc::new(Port {
            device: device.clone(),
            name: name.to_owned(),
            control: open_control()?,
            orders: orders.clone(),
        });
        let plugged = port.plug()?;
        let keeper = thread::Builder::new().name("keeper".into());
        let keeper = keeper
            .spawn(move || port.keep(plugged, &received))
            .context("cannot start a thread")?;
        Ok(Self {
            orders,
            keeper: Some(keeper),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn open_control() -> Result<Control> {
    let path = kernel::CONTROL;
    Control::open().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            anyhow::anyhow!("no {path}: load the module vduse (modprobe vduse)")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("no permission for {path}: be root, or add the udev rule in the README")
        }
        _ => anyhow::anyhow!("cannot open {path}: {e}"),
    })
}

/// Where a device is plugged in.
struct Port {
    device: Arc<Device>,
    name: String,
    control: Control,
    orders: Sender<Order>,
}

impl Port {
    /// Follows orders until the end.
    fn keep(self: &Arc<Self>, plugged: Plugged, orders: &Receiver<Order>) {
        let label = self.device.description().label.as_str();
        let mut plugged = Some(plugged);
        while let Ok(Order::Replug) = orders.recv() {
            plugged = None;
            match self.plug() {
                Ok(it) => plugged = Some(it),
                Err(e) => error!(device = label; "cannot be plugged in again: {e:#}"),
            }
        }
        drop(plugged);
    }

    /// Makes the device and puts it on the bus.
    fn plug(self: &Arc<Self>) -> Result<Plugged> {
        let name = &self.name;
        let description = session::describe(&self.device);
        let mut created = self.control.create(name, &description);
        if created.as_ref().is_err_and(|e| is(e, Errno::EXIST)) {
            self.remove_orphan()?;
            created = self.control.create(name, &description);
        }
        created.map_err(|e| match Errno::from_io_error(&e) {
            // All else that it finds fault with was checked before.
            Some(Errno::INVAL) => anyhow::anyhow!(
                "cannot create {name}: VDUSE of this kernel does not allow GPIO devices, see the README"
            ),
            _ => anyhow::anyhow!("cannot create {name}: {e}"),
        })?;
        let mut plugged = Plugged {
            port: self.clone(),
            session: None,
            on_bus: false,
        };
        let file = open(name)?;
        let timeout = format!("/sys/class/vduse/{name}/msg_timeout");
        if let Err(e) = std::fs::write(&timeout, MESSAGE_TIMEOUT) {
            debug!("{timeout} is left as it is: {e}");
        }
        for queue in 0..description.queues {
            let made = file.set_up_queue(queue, description.queue_size);
            made.with_context(|| format!("cannot set up {name}"))?;
        }
        plugged.start(file)?;
        bus::add(name).map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::PERM) => anyhow::anyhow!(
                "cannot add {name} to the vDPA bus: this needs CAP_NET_ADMIN, see the README"
            ),
            Some(Errno::EXIST) => {
                anyhow::anyhow!("{name} is taken: the vDPA bus has another device of this name")
            }
            _ => anyhow::anyhow!("cannot add {name} to the vDPA bus: {e}"),
        })?;
        plugged.on_bus = true;
        let driver = bus::place(name).join("driver");
        let driver = std::fs::read_link(driver).unwrap_or_default();
        match driver.file_name().and_then(|it| it.to_str()) {
            Some("virtio_vdpa") => Ok(plugged),
            Some(other) => {
                bail!("{name} got the driver {other} in place of virtio_vdpa: unload that one")
            }
            None => bail!("{name} has no driver: load the module virtio_vdpa"),
        }
    }

    /// Removes a device that nobody serves, if it is one of ours.
    fn remove_orphan(self: &Arc<Self>) -> Result<()> {
        let name = &self.name;
        let label = self.device.description().label.as_str();
        let place = bus::place(name);
        if place.exists() && !is_gpio(&place) {
            bail!("{name} is taken: there is a VDUSE device of another type");
        }
        let file = match DeviceFile::open(name) {
            Err(e) if is(&e, Errno::BUSY) => {
                bail!("{name} is taken: another process serves it")
            }
            other => other.with_context(|| format!("cannot open {}", kernel::path(name).display())),
        }?;
        warn!(device = label; "{name} was left behind by a process that is gone, and is replaced");
        let mut orphan = Plugged {
            port: self.clone(),
            session: None,
            on_bus: true,
        };
        orphan.start(file)
    }
}

/// Whether a device on the bus is for the driver of GPIO devices.
fn is_gpio(place: &Path) -> bool {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut types = entries.filter_map(|it| std::fs::read_to_string(it.path().join("device")).ok());
    types.any(|it| it.trim() == format!("{:#06x}", session::TYPE))
}

/// Opens a new device, which udev may still be about to give to us.
fn open(name: &str) -> Result<DeviceFile> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match DeviceFile::open(name) {
            Ok(file) => return Ok(file),
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Err(e) => {
                let path = kernel::path(name);
                return Err(e).with_context(|| {
                    format!("cannot open {}, see the README on udev", path.display())
                });
            }
        }
    }
}

/// A device that the kernel has, and that we answer for. Both end when this is dropped.
struct Plugged {
    port: Arc<Port>,
    session: Option<(JoinHandle<()>, OwnedFd)>,
    on_bus: bool,
}

impl Plugged {
    /// Starts to answer.
    fn start(&mut self, file: DeviceFile) -> Result<()> {
        let end = eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an eventfd")?;
        let ends = end.as_fd().try_clone_to_owned()?;
        let orders = self.port.orders.clone();
        // Once, as this is for the device as it is plugged in now.
        let replugs = AtomicBool::new(false);
        let replug = Arc::new(move || {
            if !replugs.swap(true, Ordering::Relaxed) {
                let _ = orders.send(Order::Replug);
            }
        });
        let device = self.port.device.clone();
        let session = Session::new(device, file, replug).context("cannot create an eventfd")?;
        let thread = thread::Builder::new().name("vduse".into());
        let thread = thread
            .spawn(move || session.run(&ends))
            .context("cannot start a thread")?;
        self.session = Some((thread, end));
        Ok(())
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        let name = &self.port.name;
        let label = self.port.device.description().label.as_str();
        // It may have been taken away from there already.
        let removed = if self.on_bus {
            bus::remove(name)
        } else {
            Ok(())
        };
        if let Err(e) = removed.or_else(|e| is(&e, Errno::NODEV).then_some(()).ok_or(e)) {
            warn!(device = label; "cannot take {name} away from the vDPA bus: {e}");
        }
        if let Some((thread, end)) = self.session.take() {
            let _ = rustix::io::write(&end, &1_u64.to_ne_bytes());
            let _ = thread.join();
        }
        match self.port.control.destroy(name) {
            Ok(()) => debug!(device = label; "{name} removed"),
            Err(e) => warn!(device = label; "cannot remove {name}: {e}"),
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
