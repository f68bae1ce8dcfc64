// SPDX-License-Identifier: GPL-2.0

//! Data that is not `Sync`, which callbacks would share.

use core::cell::Cell;
use kernel::{
    device::Core,
    prelude::*,
    virtio::{
        Device,
        Driver,
        Feature,
        IdTable, //
    }, //
};

/// A driver.
pub struct Shared;

#[vtable]
impl Driver for Shared {
    type Data<'bound> = Cell<u32>; //~ E0277

    const ID_TABLE: IdTable = todo!();
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        _dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Ok(Cell::new(0))
    }
}

kernel::module_virtio_driver! {
    type: Shared,
    name: "shared",
    description: "A driver",
    license: "GPL",
}
