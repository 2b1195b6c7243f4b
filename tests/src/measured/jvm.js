// A JVM's heap, full of what services keep: `jvm.js MB`. Then it counts and changes as memory.py does.
var MB = 1 << 20, RECORD = 1000;
var count = Number(arguments[0]) * MB / RECORD;
var random = new java.util.Random();
var zeros = java.lang.reflect.Array.newInstance(java.lang.Double.TYPE, 80);
var kept = new java.util.ArrayList(count);
for (var n = 0; n < count; n++) {
    var values = java.util.Arrays.copyOf(zeros, 80);
    for (var k = 0; k < 8; k++) values[k * 10] = random.nextDouble() * n;
    var record = new java.util.HashMap();
    record.put("name", java.lang.String.valueOf("record " + n));
    record.put("values", values);
    kept.add(record);
}
var beat = new java.io.RandomAccessFile("beat", "rw");
var change = new java.io.File("change");
for (var beats = 0; ; beats++) {
    if (change.exists()) {
        var scattered = java.nio.file.Files.readString(change.toPath()) == "scattered";
        var changed = scattered ? count : count / 20;
        for (var n = 0; n < changed; n += scattered ? 20 : 1) {
            var of = kept.get(n).get("values");
            of[0] = -of[0];
        }
        change["delete"]();
    }
    beat.seek(0);
    beat.writeBytes(("000000000000" + beats).slice(-12));
    java.lang.Thread.sleep(4);
}
