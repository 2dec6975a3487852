import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

/** A namenode and one datanode on free loopback ports, until stdin ends: `java MiniHdfs FOLDER`. */
public class MiniHdfs {
    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]).toAbsolutePath();
        Configuration conf = new Configuration();
        conf.set(MiniDFSCluster.HDFS_MINIDFS_BASEDIR, folder.resolve("dfs").toString());
        conf.set("hadoop.tmp.dir", folder.resolve("tmp").toString());
        conf.setBoolean("dfs.permissions.enabled", true);
        MiniDFSCluster cluster = new MiniDFSCluster.Builder(conf).numDataNodes(1).build();
        cluster.waitActive();
        Path aside = folder.resolve("port.new");
        Files.writeString(aside, Integer.toString(cluster.getNameNodePort()));
        Files.move(aside, folder.resolve("port"), StandardCopyOption.ATOMIC_MOVE);
        while (System.in.read() >= 0) {}
        cluster.shutdown(true);
    }
}
