//! The cases: a guest, what a hostile host does to it, and how it must end.

mod host;
mod platform;
mod tdx;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::checks;
use crate::cpu::{Cpu, Ended, lock};
use crate::error::{Error, must};
use crate::launch::{HIGH, LOW, Launch};
use crate::machine::Machine;
use crate::model::{Model, Technology};

/// A case.
pub struct Case {
    pub name: &'static str,
    /// Runs it with stage0's image. Returns what is worth telling.
    pub run: fn(&[u8]) -> Result<String, Error>,
}

/// All cases.
pub fn all() -> Vec<Case> {
    let case = |&(name, run)| Case { name, run };
    [platform::CASES, host::CASES, tdx::CASES].concat().iter().map(case).collect()
}

/// A case in a list.
type Entry = (&'static str, fn(&[u8]) -> Result<String, Error>);

/// A guest that can be changed before it runs.
pub struct Guest {
    pub launch: Launch,
    machine: Arc<Machine>,
    image: Vec<u8>,
}

/// A guest that runs.
pub struct Running {
    pub launch: Launch,
    pub machine: Arc<Machine>,
    pub model: Arc<Mutex<Model>>,
    /// The CPUs, each until it is run.
    cpus: Vec<Option<Cpu>>,
}

impl Guest {
    /// A guest of ordinary size.
    pub fn new(technology: Technology, vcpus: u32, image: &[u8]) -> Result<Self, Error> {
        Self::with_memory(technology, vcpus, image, vec![(0, LOW), HIGH])
    }

    /// A guest with this memory.
    pub fn with_memory(
        technology: Technology,
        vcpus: u32,
        image: &[u8],
        memory: Vec<(u64, u64)>,
    ) -> Result<Self, Error> {
        let machine = Arc::new(Machine::new()?);
        let launch = Launch::new(technology, machine.bit, &machine.cpuid()?, vcpus, memory)?;
        Ok(Self { launch, machine, image: image.to_vec() })
    }

    /// Launches it; `prepare` is the host's last chance.
    pub fn start(self, prepare: impl FnOnce(&mut Model) -> Result<(), Error>) -> Result<Running, Error> {
        let Self { launch, machine, image } = self;
        let mut model = Model::new(&launch, &image, machine.bit)?;
        prepare(&mut model)?;
        machine.show(&model.memory, launch.technology)?;
        let model = Arc::new(Mutex::new(model));
        // Only a TDX module starts all CPUs. The others are there for a host that starts them all the same.
        let cpus =
            (0..launch.cpus).map(|index| Cpu::new(&machine, &model, index, &launch.cpu(index)).map(Some));
        Ok(Running { cpus: cpus.collect::<Result<_, _>>()?, launch, machine, model })
    }
}

impl Running {
    /// Takes a CPU, to run it.
    pub fn take(&mut self, index: usize) -> Result<Cpu, Error> {
        let cpu = self.cpus.get_mut(index).and_then(Option::take);
        cpu.ok_or_else(|| Error::Wrong(format!("no CPU {index}")))
    }

    /// Runs all CPUs that are left, each on a thread, and tells how each ends.
    pub fn run_all(&mut self) -> mpsc::Receiver<(usize, Result<Ended, Error>)> {
        let (done, ends) = mpsc::channel();
        for (index, cpu) in self.cpus.iter_mut().enumerate() {
            if let Some(mut cpu) = cpu.take() {
                let done = done.clone();
                // A CPU that waits for the kernel ends with the process.
                thread::spawn(move || {
                    let _ = done.send((index, cpu.run()));
                });
            }
        }
        ends
    }

    /// The first CPU must have reached the kernel, with everything as it must be.
    pub fn must_be_in_the_kernel(&self, ended: &Ended) -> Result<(), Error> {
        match ended {
            Ended::Kernel(state) => {
                let (registers, special) = &**state;
                let mut model = lock(&self.model);
                checks::kernel(&self.launch, &mut model, self.machine.bit, registers, special)
            }
            other => Err(Error::Wrong(format!("did not reach the kernel: {other:?}"))),
        }
    }
}

/// The first end of any CPU.
pub fn first_end(running: &mut Running) -> Result<Ended, Error> {
    let (_, ended) = running.run_all().recv().map_err(|_| Error::Wrong("no CPU ended".into()))?;
    ended
}

/// Runs a guest whose first CPU must stop with a reason.
pub fn must_stop(running: &mut Running, stop: nacre_stage0_abi::stop::Stop) -> Result<String, Error> {
    let ended = first_end(running)?;
    let right = matches!(&ended, Ended::Stopped(found) if *found == stop);
    must(right, || format!("must stop with {stop:?}, but: {ended:?}"))?;
    Ok(stop.to_string())
}

/// Runs a guest that hardware would end.
pub fn must_die(running: &mut Running, why: &str) -> Result<String, Error> {
    let ended = first_end(running)?;
    match ended {
        Ended::Fatal(what) if what.contains(why) => Ok(what),
        other => Err(Error::Wrong(format!("must end because it {why}, but: {other:?}"))),
    }
}
