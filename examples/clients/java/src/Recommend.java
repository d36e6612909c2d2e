import com.google.gson.Gson;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import nestrec.v1.Recommend.RecommendRequest;
import nestrec.v1.Recommend.RecommendedItem;
import nestrec.v1.RecommendServiceGrpc;

/** Recommend <host:port> <tier> <item id> ...: prints what fits, best first. */
public class Recommend {
  @SuppressWarnings("unchecked")
  public static void main(String[] args) throws Exception {
    String json = Files.readString(Path.of("../service_config.json"));
    ManagedChannel channel = ManagedChannelBuilder.forTarget(args[0])
        .usePlaintext()
        .defaultServiceConfig(new Gson().fromJson(json, Map.class))
        .enableRetry()
        .build();
    RecommendRequest request = RecommendRequest.newBuilder()
        .addAllHistoryItemIds(List.of(args).subList(2, args.length))
        .setTier(args[1])
        .setK(5)
        .build();
    for (RecommendedItem item : RecommendServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(5, TimeUnit.SECONDS).recommend(request).getItemsList()) {
      System.out.println(item.getItemId() + "\t" + item.getFieldsOrDefault("title", ""));
    }
    channel.shutdownNow();
  }
}
