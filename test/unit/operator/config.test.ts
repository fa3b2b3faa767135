import { expect } from 'chai';
import { parseOperatorConfig } from '../../../operator/config.ts';

describe('parseOperatorConfig', () => {
  it('works in all namespaces, with leader election, when nothing else is said', () => {
    expect(parseOperatorConfig(['--default-image=kv:1'], { POD_NAMESPACE: 'ops' })).to.deep.equal({
      namespaces: [],
      defaultImage: 'kv:1',
      leaderElection: true,
      leaseName: 'kvcluster-operator',
      leaseNamespace: 'ops',
      httpPort: 9090,
      clusterDomain: undefined,
      concurrency: 8,
      logLevel: 'info',
    });
  });

  it('takes every flag', () => {
    const config = parseOperatorConfig(
      [
        '--default-image=kv:1',
        '--namespaces=a,b',
        '--leader-election=false',
        '--lease-name=l',
        '--lease-namespace=n',
        '--http-port=0',
        '--cluster-domain=example.local',
        '--concurrency=2',
        '--log-level=debug',
      ],
      {},
    );
    expect(config).to.deep.include({ namespaces: ['a', 'b'], leaderElection: false, leaseNamespace: 'n' });
    expect(config).to.include({
      leaseName: 'l',
      httpPort: 0,
      clusterDomain: 'example.local',
      logLevel: 'debug',
    });
  });

  it('refuses a flag given twice, and knows --help and --version', () => {
    const twice = () => parseOperatorConfig(['--default-image=a', '--default-image=b'], {});
    expect(twice).to.throw(/--default-image is given twice/);
    expect(parseOperatorConfig(['--help'], {})).to.equal('help');
    expect(parseOperatorConfig(['--version'], {})).to.equal('version');
  });

  it('reports every problem together', () => {
    const parse = () =>
      parseOperatorConfig(['--namespaces=A', '--concurrency=none', '--colour=red', 'extra'], {});
    expect(parse).to.throw(/unknown flag --colour/);
    expect(parse).to.throw(/unexpected argument "extra"/);
    expect(parse).to.throw(/--namespaces must be names of namespaces/);
    expect(parse).to.throw(/--concurrency must be a whole number/);
    expect(parse).to.throw(/--default-image is required/);
  });
});
