//! Signals for one thread, with a handler, as a timer or a debugger sends them.

#![allow(unsafe_code, reason = "no crate has these calls safe")]

extern "C" fn nothing(_: libc::c_int) {}

/// From now on SIGUSR1 interrupts what a thread waits for, and calls that can be repeated are (`SA_RESTART`).
pub fn handle_usr1() {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the structure lives until the call returns, and the handler does nothing.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Sends SIGUSR1 to a thread that runs.
pub fn interrupt(thread: libc::pthread_t) {
    // SAFETY: the thread was not joined yet.
    assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
}
