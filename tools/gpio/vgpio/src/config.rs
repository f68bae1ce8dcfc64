// SPDX-License-Identifier: GPL-2.0-only

//! How a user describes devices: `--device KEY=VALUE,...` or `[[device]]` tables in a TOML file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use crate::device::Description;
use crate::duration;
use crate::names::Names;
use crate::poll;
use crate::real;

/// The most entries that a ring may have, if the user does not say less.
pub const QUEUE_SIZE: u16 = 1024;

/// The longest name of a VDUSE device.
const NAME_MAX: usize = 64;

/// A device as the user wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    pub socket: PathBuf,
    pub vduse: Option<String>,
    pub lines: u32,
    pub label: Option<String>,
    pub names: Vec<String>,
    pub names_file: Option<PathBuf>,
    pub values: String,
    pub irq: Option<bool>,
    pub i2c_eeprom: Option<(u16, u16)>,
    pub irq_needs_input: bool,
    pub strict: bool,
    pub access_platform: bool,
    pub queue_size: Option<u32>,
    pub poll: Option<String>,
    pub host_line: Vec<real::config::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    device: Vec<Device>,
}

/// Reads the devices in a TOML file.
pub fn read(path: &Path) -> Result<Vec<Device>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    parse(&text).map_err(|(line, e)| anyhow::anyhow!("{shown}:{line}: {e}"))
}

/// Reads the devices in the text of such a file. An error comes with the number of its line.
pub fn parse(text: &str) -> Result<Vec<Device>, (usize, String)> {
    let file: File = toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start);
        let before = text.as_bytes()[..start].iter();
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        (line, e.message().replace('\n', "; "))
    })?;
    Ok(file.device)
}

impl std::str::FromStr for Device {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut device = Self::default();
        let mut seen = HashSet::new();
        for word in text.split(',') {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            let required = || value.with_context(|| format!("{key} needs a value: {key}=..."));
            if key == "host-line" {
                device.host_line.push(real::config::Table::new(required()?));
                seen.retain(|key| !real::config::KEYS.contains(key));
                continue;
            }
            ensure!(seen.insert(key), "{key} is given twice");
            if real::config::KEYS.contains(&key) {
                let table = device.host_line.last_mut();
                let table = table.with_context(|| format!("{key} goes after host-line=..."))?;
                table.set(key, required()?)?;
                continue;
            }
            let number = || -> Result<u32> {
                let value = required()?;
                value
                    .parse()
                    .with_context(|| format!("bad {key} {value:?}: use a number"))
            };
            let switch = || match value {
                None | Some("on") => Ok(true),
                Some("off") => Ok(false),
                Some(value) => bail!("bad {key} {value:?}: use on or off"),
            };
            match key {
                "socket" => device.socket = required()?.into(),
                "vduse" => device.vduse = Some(required()?.into()),
                "lines" => device.lines = number()?,
                "label" => device.label = Some(required()?.into()),
                "names" => device.names = required()?.split(':').map(str::to_owned).collect(),
                "names-file" => device.names_file = Some(required()?.into()),
                "values" => device.values = required()?.into(),
                "irq" => device.irq = Some(switch()?),
                "i2c-eeprom" => device.i2c_eeprom = Some(pair(required()?)?),
                "irq-needs-input" => device.irq_needs_input = switch()?,
                "strict" => device.strict = switch()?,
                "access-platform" => device.access_platform = switch()?,
                "queue-size" => device.queue_size = Some(number()?),
                "poll" => device.poll = Some(required()?.into()),
                _ => bail!(
                    "unknown key {key:?}: use socket, vduse, lines, label, names, names-file, values, \
                     irq, i2c-eeprom, irq-needs-input, strict, access-platform, queue-size, poll or \
                     host-line"
                ),
            }
        }
        Ok(device)
    }
}

/// Reads the numbers of two lines.
fn pair(text: &str) -> Result<(u16, u16)> {
    text.split_once(':')
        .and_then(|(sda, scl)| Some((sda.parse().ok()?, scl.parse().ok()?)))
        .with_context(|| format!("bad i2c-eeprom {text:?}: use SDA:SCL, two lines"))
}

impl Device {
    /// Checks the description; `index` makes a label if the user gave none.
    pub fn describe(&self, index: usize) -> Result<Description> {
        match &self.vduse {
            None => ensure!(
                !self.socket.as_os_str().is_empty(),
                "no socket: add socket=PATH, or vduse=NAME for a device of this machine"
            ),
            Some(name) => {
                ensure!(
                    self.socket.as_os_str().is_empty(),
                    "socket and vduse exclude each other"
                );
                check_name(name)?;
            }
        }
        let lines = match self.lines {
            0 => self.host_line.len(),
            lines => lines as usize,
        };
        ensure!(
            (1..=0xffff).contains(&lines),
            "cannot have {lines} lines: use lines=1 to lines=65535"
        );
        let lines = lines as u16;
        let host_lines = real::config::describe(&self.host_line, lines)?;
        let on_bus = |line: u16| host_lines.iter().any(|it| it.line == line);
        ensure!(
            !self
                .i2c_eeprom
                .is_some_and(|(sda, scl)| on_bus(sda) || on_bus(scl)),
            "an EEPROM cannot be on lines of the host"
        );
        let label = self.label.as_ref().or(self.vduse.as_ref());
        let label = label.cloned().unwrap_or_else(|| format!("vgpio{index}"));
        ensure!(
            !label.is_empty() && label.parse::<usize>().is_err(),
            "bad label {label:?}: use a word that is not a number"
        );
        Ok(Description {
            label,
            lines,
            names: Names::new(self.names()?, lines)?,
            values: self.values(lines)?,
            irq: self.irq.unwrap_or(true),
            i2c_eeprom: self.i2c_eeprom(lines)?,
            irq_needs_input: self.irq_needs_input,
            strict: self.strict,
            access_platform: self.access_platform,
            queue_size: self.queue_size()?,
            poll: self.poll()?,
            host_lines,
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = self.given_names()?;
        for (index, table) in self.host_line.iter().enumerate() {
            let Some(name) = &table.name else {
                continue;
            };
            let line = usize::from(real::config::line(index, table));
            if names.len() <= line {
                names.resize(line + 1, String::new());
            }
            ensure!(names[line].is_empty(), "line {line} has two names");
            names[line] = name.clone();
        }
        Ok(names)
    }

    fn given_names(&self) -> Result<Vec<String>> {
        let Some(path) = &self.names_file else {
            return Ok(self.names.clone());
        };
        ensure!(
            self.names.is_empty(),
            "names and names-file exclude each other"
        );
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read names-file {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn values(&self, lines: u16) -> Result<Vec<bool>> {
        let lines = usize::from(lines);
        let count = self.values.chars().count();
        ensure!(
            count <= lines,
            "{count} values for {lines} lines: give at most one digit per line"
        );
        let mut values = self
            .values
            .chars()
            .map(|digit| match digit {
                '0' => Ok(false),
                '1' => Ok(true),
                _ => bail!("bad values {:?}: use the digits 0 and 1", self.values),
            })
            .collect::<Result<Vec<_>>>()?;
        values.resize(lines, false);
        Ok(values)
    }

    fn i2c_eeprom(&self, lines: u16) -> Result<Option<(u16, u16)>> {
        if let Some((sda, scl)) = self.i2c_eeprom {
            ensure!(
                sda != scl && sda < lines && scl < lines,
                "bad i2c-eeprom {sda}:{scl}: use two lines from 0 to {}",
                lines - 1
            );
        }
        Ok(self.i2c_eeprom)
    }

    fn queue_size(&self) -> Result<u16> {
        let Some(size) = self.queue_size else {
            return Ok(QUEUE_SIZE);
        };
        u16::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two() && (2..=QUEUE_SIZE).contains(size))
            .with_context(|| format!("bad queue-size {size}: use a power of two from 2 to 1024"))
    }

    fn poll(&self) -> Result<Duration> {
        let Some(text) = &self.poll else {
            return Ok(Duration::ZERO);
        };
        duration::parse(text)
            .ok()
            .filter(|time| *time <= poll::LONGEST)
            .with_context(|| format!("bad poll {text:?}: use a time of at most 10ms, such as 50us"))
    }
}

/// The name of a VDUSE device becomes those of files in /dev and in sysfs.
fn check_name(name: &str) -> Result<()> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ensure!(
        (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(known)
            && !name.starts_with('.')
            && name != "control",
        "bad vduse {name:?}: use a word of letters and digits, with -, _ and . in between"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(text: &str) -> Result<Description> {
        text.parse::<Device>()?.describe(3)
    }

    #[test]
    fn all_keys() {
        let text = "socket=/a b,lines=5,label=panel,names=a::c,values=011,irq=off,\
                    i2c-eeprom=4:2,irq-needs-input,strict,access-platform,queue-size=64,poll=50us";
        let it = describe(text).unwrap();
        assert_eq!(it.label, "panel");
        assert_eq!(it.lines, 5);
        assert_eq!(it.names.block(), b"a\0\0c\0\0\0");
        assert_eq!(it.values, [false, true, true, false, false]);
        assert!(!it.irq && it.irq_needs_input && it.strict && it.access_platform);
        assert_eq!(it.i2c_eeprom, Some((4, 2)));
        assert_eq!(it.queue_size, 64);
        assert_eq!(it.poll, Duration::from_micros(50));
    }

    #[test]
    fn defaults() {
        let it = describe("socket=s,lines=1").unwrap();
        assert_eq!(it.label, "vgpio3");
        assert!(it.irq && !it.irq_needs_input && !it.strict && !it.access_platform);
        assert_eq!(it.queue_size, 1024);
        assert!(it.poll.is_zero());
        assert!(it.names.block().is_empty());
    }

    #[test]
    fn vduse_has_a_name() {
        assert_eq!(describe("vduse=panel-1,lines=1").unwrap().label, "panel-1");
        let it = describe("vduse=panel,lines=1,label=other").unwrap();
        assert_eq!(it.label, "other");
        let name = "a".repeat(NAME_MAX + 1);
        describe(&format!("vduse={name},lines=1")).unwrap_err();
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("lines=1", "no socket"),
            ("socket=s,vduse=a,lines=1", "exclude each other"),
            ("vduse=,lines=1", "bad vduse"),
            ("vduse=a/b,lines=1", "bad vduse"),
            ("vduse=..,lines=1", "bad vduse"),
            ("vduse=control,lines=1", "bad vduse"),
            ("vduse=7,lines=1", "bad label"),
            ("socket=s", "cannot have 0 lines"),
            ("socket=s,lines=0", "cannot have 0 lines"),
            ("socket=s,lines=65536", "cannot have 65536 lines"),
            ("socket=s,lines=x", "bad lines"),
            ("socket=s,lines=2,lines=3", "given twice"),
            ("socket=s,lines=2,names=a:b:c", "3 names for 2 lines"),
            ("socket=s,lines=2,names=a:a", "must be unique"),
            ("socket=s,lines=2,values=010", "3 values for 2 lines"),
            ("socket=s,lines=2,values=2", "digits 0 and 1"),
            ("socket=s,lines=2,irq=maybe", "bad irq"),
            ("socket=s,lines=2,i2c-eeprom=1", "use SDA:SCL"),
            ("socket=s,lines=2,i2c-eeprom=1:1", "bad i2c-eeprom"),
            ("socket=s,lines=2,i2c-eeprom=0:2", "lines from 0 to 1"),
            ("socket=s,lines=2,queue-size=100", "bad queue-size"),
            ("socket=s,lines=2,queue-size=2048", "bad queue-size"),
            ("socket=s,lines=2,poll=often", "bad poll"),
            ("socket=s,lines=2,poll=11ms", "bad poll"),
            ("socket=s,lines=2,label=7", "bad label"),
            ("socket=s,lines=2,colour=red", "unknown key"),
            ("socket=s,host-line", "host-line needs a value"),
            ("socket=s,host-line=", "needs from"),
            ("socket=s,name=a,host-line=a:1", "goes after host-line"),
            (
                "socket=s,host-line=a:1,name=a,name=b",
                "name is given twice",
            ),
            ("socket=s,host-line=a:1,only=both", "bad only"),
            ("socket=s,host-line=a:1,bias=up", "bad bias"),
            ("socket=s,host-line=a:1,bias", "bias needs a value"),
            ("socket=s,host-line=a:1,line=x", "bad line"),
            ("socket=s,host-line=a:1,line=1", "bad host-line 1"),
            ("socket=s,host-line=a:1,debounce=2m", "bad debounce"),
            (
                "socket=s,lines=2,host-line=a:1,name=a,host-line=a:2,name=a",
                "must be unique",
            ),
            (
                "socket=s,lines=2,names-file=/nonexistent",
                "cannot read names-file",
            ),
        ] {
            let error = format!("{:#}", describe(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn toml_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.toml");
        std::fs::write(
            &path,
            "[[device]]\nsocket = '/s'\nlines = 3\nnames = ['a,b', '', 'c']\nirq = false\ni2c-eeprom = [0, 1]\n",
        )
        .unwrap();
        let devices = read(&path).unwrap();
        let it = devices[0].describe(0).unwrap();
        assert_eq!(it.names.get(0), Some("a,b"));
        assert!(!it.irq);
        assert_eq!(it.i2c_eeprom, Some((0, 1)));

        std::fs::write(&path, "[[device]]\nsocket = '/s'\nlimes = 3\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("devices.toml:3: unknown field"), "{error}");
    }

    #[test]
    fn host_lines_on_the_command_line() {
        let it = describe(
            "socket=s,lines=5,host-line=gpiochip0:17,name=a,only=input,bias=pull-up,debounce=5ms,\
             host-line=GPIO4,line=3,name=d,only=output,bias=disabled,host-line=/dev/gpiochip1:x",
        );
        let in_file = with_host_lines(
            "lines = 5\n\
             [[device.host-line]]\nfrom = 'gpiochip0:17'\nname = 'a'\nonly = 'input'\n\
             bias = 'pull-up'\ndebounce = '5ms'\n\
             [[device.host-line]]\nline = 3\nfrom = 'GPIO4'\nname = 'd'\nonly = 'output'\n\
             bias = 'disabled'\n\
             [[device.host-line]]\nfrom = '/dev/gpiochip1:x'\n",
        );
        let (it, in_file) = (it.unwrap(), in_file.unwrap());
        assert_eq!(it.host_lines, in_file.host_lines);
        assert_eq!(it.host_lines.len(), 3);
        assert_eq!(it.names.block(), in_file.names.block());
        assert_eq!(
            describe("vduse=s,host-line=a:1,host-line=a:2")
                .unwrap()
                .lines,
            2
        );
    }

    fn with_host_lines(text: &str) -> Result<Description, String> {
        let text = format!("[[device]]\nsocket = '/s'\n{text}");
        let devices = parse(&text).map_err(|(line, e)| format!("{line}: {e}"))?;
        devices[0].describe(0).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn host_lines() {
        let it = with_host_lines(
            "lines = 5\nnames = ['', 'b']\n\
             [[device.host-line]]\nfrom = 'gpiochip0:17'\nname = 'a'\nonly = 'input'\n\
             bias = 'pull-up'\ndebounce = '5ms'\n\
             [[device.host-line]]\nline = 3\nfrom = 'GPIO4'\nname = 'd'\n",
        )
        .unwrap();
        assert_eq!(it.lines, 5);
        assert_eq!(it.names.block(), b"a\0b\0\0d\0\0");
        let [first, second] = &it.host_lines[..] else {
            panic!("{:?}", it.host_lines);
        };
        assert_eq!((first.line, first.from.as_str()), (0, "gpiochip0:17"));
        assert_eq!(first.only, Some(real::config::Only::Input));
        assert_eq!(first.bias, Some(real::config::Bias::PullUp));
        assert_eq!(first.debounce, Duration::from_millis(5));
        assert_eq!((second.line, second.from.as_str()), (3, "GPIO4"));
        assert_eq!((second.only, second.bias), (None, None));
        assert!(second.debounce.is_zero());

        let alone = with_host_lines("[[device.host-line]]\nfrom = 'a:1'").unwrap();
        assert_eq!(alone.lines, 1);
    }

    #[test]
    fn mistakes_in_host_lines_are_named() {
        for (text, part) in [
            ("[[device.host-line]]", "missing field `from`"),
            ("[[device.host-line]]\nfrom = ''", "needs from"),
            (
                "[[device.host-line]]\nfrom = 'a:1'\nonly = 'both'",
                "unknown variant",
            ),
            (
                "[[device.host-line]]\nfrom = 'a:1'\nbias = 'up'",
                "unknown variant",
            ),
            (
                "[[device.host-line]]\nfrom = 'a:1'\npull = 'up'",
                "unknown field",
            ),
            (
                "[[device.host-line]]\nfrom = 'a:1'\ndebounce = '2m'",
                "bad debounce",
            ),
            (
                "lines = 2\n[[device.host-line]]\nfrom = 'a:1'\nline = 2",
                "bad host-line 2",
            ),
            (
                "lines = 2\n[[device.host-line]]\nfrom = 'a:1'\nline = 1\n\
                 [[device.host-line]]\nfrom = 'a:2'",
                "host-line 1 is given twice",
            ),
            (
                "names = ['a']\n[[device.host-line]]\nfrom = 'a:1'\nname = 'b'",
                "line 0 has two names",
            ),
            (
                "lines = 2\ni2c-eeprom = [0, 1]\n[[device.host-line]]\nfrom = 'a:1'",
                "EEPROM",
            ),
        ] {
            let error = with_host_lines(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
