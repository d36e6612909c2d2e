// node recommend.js <host:port> <tier> <item id> ...: prints what fits, best first.
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const proto = path.join(__dirname, '../../../proto');
const { nestrec } = grpc.loadPackageDefinition(
  protoLoader.loadSync('nestrec/v1/recommend.proto', { includeDirs: [proto], keepCase: true }));
const serviceConfig = fs.readFileSync(path.join(__dirname, '../service_config.json'), 'utf8');

const [server, tier, ...history] = process.argv.slice(2);
const service = new nestrec.v1.RecommendService(
  server, grpc.credentials.createInsecure(), { 'grpc.service_config': serviceConfig });
service.Recommend(
  { history_item_ids: history, tier, k: 5 },
  { deadline: Date.now() + 5000 },
  (error, response) => {
    if (error) throw error;
    for (const item of response.items) console.log(`${item.item_id}\t${item.fields.title ?? ''}`);
    service.close();
  });
