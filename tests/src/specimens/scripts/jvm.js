// Rhino on a JVM: threads, the garbage collector and the compiler at work while it is frozen.
var map = new java.util.concurrent.ConcurrentHashMap();
var leave = new java.util.concurrent.atomic.AtomicBoolean(false);
function work(name) {
    return new java.lang.Thread(new java.lang.Runnable({ run: function () {
        var sum = 0;
        while (!leave.get()) {
            for (var i = 0; i < 1000; i++) sum += i % 7;
            var garbage = java.lang.reflect.Array.newInstance(java.lang.Byte.TYPE, 100000);
            map.put(name, sum);
        }
    }}));
}
var threads = [work("a"), work("b")];
threads.forEach(function (thread) { thread.start(); });
print("ready");
var go = new java.io.File("/srv/go");
var tick = 0;
do {
    tick++;
    print("tick " + tick);
    java.lang.Thread.sleep(25);
} while (!go.exists());
tick++;
print("tick " + tick);
print("done");
leave.set(true);
threads.forEach(function (thread) { thread.join(); });
java.lang.System.exit(map.size() == 2 && map.get("a") > 0 ? 7 : 1);
