// main <host:port> <tier> <item id> ...: prints what fits, best first.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	nestrec "example.com/recommend/nestrec/v1"
)

func main() {
	serviceConfig, err := os.ReadFile("../service_config.json")
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(serviceConfig)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	response, err := nestrec.NewRecommendServiceClient(connection).Recommend(ctx,
		&nestrec.RecommendRequest{
			HistoryItemIds: os.Args[3:],
			Width:          &nestrec.RecommendRequest_Tier{Tier: os.Args[2]},
			K:              proto.Uint32(5),
		})
	if err != nil {
		log.Fatal(err)
	}
	for _, item := range response.Items {
		fmt.Printf("%s\t%s\n", item.ItemId, item.Fields["title"])
	}
}
