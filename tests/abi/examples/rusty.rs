//! A strategy in Rust through the C border:  rustc --edition 2021 --crate-type cdylib -C panic=abort rusty.rs -o rusty.so
use std::ffi::c_void;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct HealStr { data: *const u8, size: usize }
#[repr(C)]
pub struct HealSink { ctx: *mut c_void, write: extern "C" fn(*mut c_void, HealStr) -> bool }
#[repr(C)]
pub struct HealHost {
    struct_size: u32, abi_minor: u32, ctx: *mut c_void,
    log: extern "C" fn(*mut c_void, i32, HealStr, HealStr),
    get_extension: extern "C" fn(*mut c_void, *const u8) -> *const c_void,
}
#[repr(C)]
pub struct HealCall {
    struct_size: u32, reserved: u32, ctx: *mut c_void,
    is_cancelled: extern "C" fn(*mut c_void) -> bool,
    remaining_ms: extern "C" fn(*mut c_void) -> i64,
    result: *const HealSink, error: *const HealSink,
}
type Step = extern "C" fn(*mut c_void, HealStr, *const HealCall) -> i32;
#[repr(C)]
pub struct HealStrategy {
    struct_size: u32, reserved: u32, me: *mut c_void,
    destroy: extern "C" fn(*mut c_void), execute: Step,
    assess: Option<extern "C" fn(*mut c_void, HealStr, *const HealCall, *mut f64) -> i32>,
    verify: Option<Step>, rollback: Option<Step>,
    get_extension: Option<extern "C" fn(*mut c_void, *const u8) -> *const c_void>,
}
#[repr(C)]
pub struct HealPluginEntry {
    struct_size: u32, abi_major: u32, abi_minor: u32, reserved: u32,
    describe: extern "C" fn() -> HealStr,
    create: extern "C" fn(*const HealHost, HealStr, HealStr, *mut *const HealStrategy, *const HealSink) -> i32,
}
unsafe impl Sync for HealStrategy {}
unsafe impl Sync for HealPluginEntry {}

#[repr(C)]
struct HealEffects1 {
    struct_size: u32, reserved: u32,
    perform: extern "C" fn(*const HealCall, HealStr, HealStr, *const HealSink, *const HealSink) -> i32,
}

static mut HOST: *const HealHost = std::ptr::null();

fn text(s: &str) -> HealStr { HealStr { data: s.as_ptr(), size: s.len() } }

extern "C" fn append(ctx: *mut c_void, chunk: HealStr) -> bool {
    let to = unsafe { &mut *(ctx as *mut Vec<u8>) };
    to.extend_from_slice(unsafe { std::slice::from_raw_parts(chunk.data, chunk.size) });
    true
}

extern "C" fn execute(_me: *mut c_void, _request: HealStr, call: *const HealCall) -> i32 {
    unsafe {
        let effects = ((*HOST).get_extension)((*HOST).ctx, b"heal.effects/1\0".as_ptr()) as *const HealEffects1;
        if effects.is_null() { return 6; }
        let (mut result, mut error) = (Vec::<u8>::new(), Vec::<u8>::new());
        let result_sink = HealSink { ctx: &mut result as *mut _ as *mut c_void, write: append };
        let error_sink = HealSink { ctx: &mut error as *mut _ as *mut c_void, write: append };
        let status = ((*effects).perform)(call, text("exec"), text(r#"{"argv":["/bin/echo","from Rust"]}"#), &result_sink, &error_sink);
        if status != 0 { return status; }
        let said = String::from_utf8_lossy(&result).contains("from Rust");
        let sink = &*(*call).result;
        (sink.write)(sink.ctx, text(if said { r#"{"text":"Rust says hello"}"# } else { "{}" }));
    }
    0
}
extern "C" fn destroy(_me: *mut c_void) {}

static STRATEGY: HealStrategy = HealStrategy {
    struct_size: std::mem::size_of::<HealStrategy>() as u32, reserved: 0, me: std::ptr::null_mut(),
    destroy, execute, assess: None, verify: None, rollback: None, get_extension: None,
};

extern "C" fn describe() -> HealStr {
    text(r#"[{"name":"rusty","summary":"A strategy in Rust","risk":"safe","matches":[{"service":"*"}],"capabilities":["exec:/bin/echo"]}]"#)
}
extern "C" fn create(host: *const HealHost, _name: HealStr, _config: HealStr, ret: *mut *const HealStrategy, _error: *const HealSink) -> i32 {
    unsafe { HOST = host; *ret = &STRATEGY; }
    0
}

static ENTRY: HealPluginEntry = HealPluginEntry {
    struct_size: std::mem::size_of::<HealPluginEntry>() as u32, abi_major: 1, abi_minor: 0, reserved: 0, describe, create,
};

#[no_mangle]
pub extern "C" fn heal_plugin_entry_v1() -> *const HealPluginEntry { &ENTRY }
